"""A child that runs each request in a fork of itself: loaded once, and no request sees what another left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NoReturn, TextIO

from trtfarm_worker.child.lifeline import die_with_parent
from trtfarm_worker.child.protocol import Ended

_STANDARD = {0, 1, 2}


def serve(requests: Iterable[str], control: TextIO, keep: int, run: Callable[[str], object]) -> None:
    """Until the requests end; tells on ``control`` how each one's process ended.

    Args:
        requests: a line each.
        control: stays with this process.
        keep: the descriptor that ``run`` answers on.
        run: what a fork does, and then ends.
    """
    for line in requests:
        status = attempt(partial(run, line), keep)
        control.write(Ended(status=status).model_dump_json() + "\n")
        control.flush()


def attempt(run: Callable[[], object], keep: int) -> int:
    """Runs it in a fork that has nothing else open; the exit status, negative for a signal."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(parent, run, keep)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _child(parent: int, run: Callable[[], object], keep: int) -> NoReturn:
    status = 1
    try:
        die_with_parent(parent)
        _close_all_but(keep)
        run()
        status = 0
    finally:
        os._exit(status)  # the libraries' own endings are the parent's


def _close_all_but(keep: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor not in {keep, *_STANDARD}:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(descriptor)
