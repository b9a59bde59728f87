"""Named places where a test makes this process fail. For developers; without the variable they do nothing.

``TRTFARM_FAILPOINTS=worker.after_claim:kill9@2,dispatcher.before_ring:sleep=0.5`` kills the process when it
comes to the first place for the second time, and lets it sleep at the other, the first time. Actions:

* ``kill9``: SIGKILL, as the kernel's lack of memory or a machine's end would.
* ``pause``: SIGSTOP; somebody else continues it.
* ``sleep=SECONDS``.
* ``raise``: a ``FailpointError``, which no code expects.

``@N``: at the N-th visit only; by default the first.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from functools import cache

VARIABLE = "TRTFARM_FAILPOINTS"
POINTS = frozenset(
    {
        "api.after_insert_before_commit",
        "api.after_commit_before_ring",
        "api.before_cancel_commit",
        "upload.mid_chunk",
        "upload.after_fsync",
        "upload.after_put",
        "upload.before_finalize_commit",
        "upload.after_finalize_commit",
        "dispatcher.before_ring",
        "dispatcher.after_ring",
        "reaper.before_commit",
        "reaper.after_commit",
        "gc.before_adopt_commit",
        "gc.before_mark_commit",
        "gc.after_mark",
        "gc.after_unlink",
        "gc.after_remove",
        "worker.before_claim_commit",
        "worker.after_claim",
        "worker.after_fetch",
        "worker.after_child_exit",
        "worker.after_seal",
        "worker.before_publish",
        "worker.after_publish",
        "worker.before_commit",
        "worker.after_commit",
        "worker.before_renew_commit",
        "timing_cache.after_put",
        "timing_cache.after_commit",
    }
)
_ACTIONS = frozenset({"kill9", "pause", "sleep", "raise"})
_visits: Counter[str] = Counter()
_counting = threading.Lock()


class FailpointError(Exception):
    """Raised by a failpoint: what nobody has thought of."""


def reach(point: str) -> None:
    """Marks a place by its name."""
    if armed := _armed():
        _visit(armed, point)


@cache
def _armed() -> dict[tuple[str, int], tuple[str, float]]:
    """(name, visit) → (action, seconds), from the environment. Raises ValueError for what it cannot mean."""
    found = {}
    for item in filter(None, os.environ.get(VARIABLE, "").split(",")):
        point, _, rest = item.partition(":")
        what, _, visit = rest.partition("@")
        action, _, seconds = what.partition("=")
        if point not in POINTS or action not in _ACTIONS:
            raise ValueError(f"{VARIABLE}: there is no {item!r}")
        found[point, int(visit or 1)] = (action, float(seconds or 0))
    return found


def _visit(armed: dict[tuple[str, int], tuple[str, float]], point: str) -> None:
    with _counting:
        _visits[point] += 1
        action, seconds = armed.get((point, _visits[point]), ("", 0.0))
    if action == "kill9":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "sleep":
        time.sleep(seconds)
    elif action == "raise":
        raise FailpointError(point)
