"""What the attempts of one worker share, and what each kind of job does with its child."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.store import ArtifactStore
from trtfarm_db.engine import Database
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.protocol import ChildRequest, Done, Failed
from trtfarm_worker.settings import WorkerSettings

Effect = Callable[[LeaseRepository], object]
OnStage = Callable[[str], None]


@dataclass(frozen=True)
class Workshop:
    """What the attempts of one worker share.

    ``folder`` is the worker's own. ``device``: the GPU they have, if any.
    """

    worker_id: str
    folder: Path
    settings: WorkerSettings
    database: Database
    store: ArtifactStore
    models: ModelCache
    device: Device | None
    stopping: Callable[[], bool]

    @property
    def gpu_uuid(self) -> str | None:
        return self.device.uuid if self.device else None

    def publish(self, path: Path) -> PublishedBlob:
        """Puts a finished file into the store."""
        with path.open("rb") as file:
            digest = Digest.of_file(file)
        blob = self.store.put_file(path, digest, path.stat().st_size)
        return PublishedBlob(digest=digest, size_bytes=blob.size_bytes, etag=blob.etag)

    def publish_all(self, *paths: Path) -> list[PublishedBlob]:
        """At the same time: each waits for the disk, or for S3."""
        with ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(self.publish, paths))

    def publish_if_there(self, path: Path) -> PublishedBlob | None:
        return self.publish(path) if path.exists() else None


class Child(Protocol):
    """Runs one short request of the kind that needs no supervision, as combining timing caches."""

    def __call__(self, request: ChildRequest) -> Done | Failed | None: ...


class Work(Protocol):
    """One kind of job."""

    @contextlib.contextmanager
    def request(self, on_stage: OnStage) -> Iterator[ChildRequest]:
        """Fetches what the child needs, for as long as the block runs."""
        ...

    def effect(self, done: Done, run: Child) -> Effect:
        """Publishes what the child made; returns what is to be committed."""
        ...
