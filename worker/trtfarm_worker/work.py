"""What the attempts of one worker share, and what each kind of job does with its child."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from trtfarm.contract.device import Device
from trtfarm.contract.jobs import Outcome
from trtfarm.store import ArtifactStore
from trtfarm_db.engine import Database
from trtfarm_worker.child.protocol import Built, ChildRequest, Done, Failed, Measured
from trtfarm_worker.delivery import Delivery
from trtfarm_worker.finished import Finished
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.outbox import Outbox
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.spool import Spool


class StoppedError(Exception):
    """An attempt must end before its child has anything to do; ``stalled``: its process stood still."""

    def __init__(self, outcome: Outcome, *, stalled: bool = False) -> None:
        super().__init__(outcome)
        self.outcome, self.stalled = outcome, stalled


class Watch(Protocol):
    """What the preparation of an attempt tells and asks."""

    def stage(self, name: str) -> None: ...

    def check(self) -> None:
        """Cheap. Raises StoppedError: it timed out, is cancelled or superseded, or the worker stops."""


@dataclass(frozen=True)
class Workshop:
    """What the attempts of one worker share.

    ``device``: the GPU they have, if any.
    """

    worker_id: str
    spool: Spool
    delivery: Delivery
    outbox: Outbox
    settings: WorkerSettings
    database: Database
    store: ArtifactStore
    models: ModelCache
    device: Device | None
    stopping: Callable[[], bool]

    @property
    def gpu_uuid(self) -> str | None:
        return self.device.uuid if self.device else None


class Child(Protocol):
    """Runs one short request of the kind that needs no supervision, as combining timing caches."""

    def __call__(self, request: ChildRequest) -> Done | Failed | None: ...


class Work(Protocol):
    """One kind of job."""

    @contextlib.contextmanager
    def request(self, watch: Watch) -> Iterator[ChildRequest]:
        """Fetches and makes what the child needs, for as long as the block runs.

        Raises:
            StoppedError: the attempt must end.
        """
        ...

    def finished(self, done: Built | Measured) -> Finished:
        """What is to be handed in. The files that it is about lie in the attempt's folder."""
        ...

    def share(self, finished: Finished, run: Child) -> Finished:
        """What other jobs gain from this one, as its timings. Returns the work with what came of that."""
        ...
