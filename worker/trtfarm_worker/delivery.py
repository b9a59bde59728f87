"""Handing in finished work: its files into the store, then its effect into the database, under its fence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState, Outcome
from trtfarm.contract.leases import AttemptFailure, Claim, PublishedBlob, Renewal
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import (
    ConfigurationError,
    DigestMismatchError,
    NotFoundError,
    StaleFenceError,
    StorageFullError,
    UnavailableError,
)
from trtfarm.failpoints import reach
from trtfarm.store import ArtifactStore
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import REMOVALS, ArtifactRemovedError, ArtifactRepository
from trtfarm_db.repositories.attempts import attempt_outcome
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_worker import failures
from trtfarm_worker.finished import LOG, Effect, Finished
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.spool import Entry

Renew = Callable[[Progress | None], Renewal]

_log = logging.getLogger(__name__)

# Not the work's fault: it can be handed in later. ConfigurationError: the store refuses this worker.
LATER = (UnavailableError, StorageFullError, ConfigurationError)


class Delivery:
    """Safe to repeat: blobs are named by their content, and the fence lets one effect through."""

    def __init__(self, store: ArtifactStore, database: Database, settings: WorkerSettings) -> None:
        self._store = store
        self._database = database
        self._settings = settings

    def hand_in(self, entry: Entry, finished: Finished) -> None:
        """Ends with the entry removed: handed in, or superseded.

        Raises:
            UnavailableError, StorageFullError, ConfigurationError: not now; the entry stays.
        """
        try:
            self._publish_and_commit(entry, finished)
        except StaleFenceError:
            _log.warning("job %s: %s", finished.claim.job_id, self._why_stale(finished.claim))
        entry.remove()

    def _publish_and_commit(self, entry: Entry, finished: Finished) -> None:
        for _ in range(REMOVALS):
            try:
                reach("worker.before_publish")
                blobs = self.publish(entry, finished)
                reach("worker.after_publish")
            except (DigestMismatchError, OSError) as error:
                finished, blobs = _damaged(finished, error), {}
            try:
                self.commit(finished, finished.effect(blobs))
            except ArtifactRemovedError as error:
                self.restore(error, partial(self.publish, entry, finished))
            else:
                return
        raise UnavailableError("What the job publishes keeps being removed from the store.")

    def restore(
        self, error: ArtifactRemovedError, publish: Callable[[], Mapping[str, PublishedBlob]]
    ) -> None:
        """The same bytes were garbage until now: publishes them once more while nobody can remove them."""
        with self._database.transaction() as connection:
            artifacts = ArtifactRepository(connection)
            artifacts.hold(error.digests)
            for blob in publish().values():
                if blob.digest in error.digests:
                    artifacts.restored(blob)

    def publish(self, entry: Entry, finished: Finished) -> dict[str, PublishedBlob]:
        """At the same time: each file waits for the disk, or for S3."""

        def put(name: str) -> PublishedBlob:
            described = finished.files.get(name)
            if described is None:
                return self.publish_file(entry.path / name)
            path = entry.path / name
            blob = self._store.put_file(path, described.digest, described.size_bytes)
            return PublishedBlob(digest=described.digest, size_bytes=described.size_bytes, etag=blob.etag)

        names = [*finished.files, *([LOG] if entry.log_path.exists() else [])]
        if not names:
            return {}
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(put, names), strict=True))

    def publish_file(self, path: Path) -> PublishedBlob:
        """A file as it is."""
        with path.open("rb") as file:
            digest = Digest.of_file(file)
        blob = self._store.put_file(path, digest, path.stat().st_size)
        return PublishedBlob(digest=digest, size_bytes=blob.size_bytes, etag=blob.etag)

    def publish_named(self, path: Path) -> dict[str, PublishedBlob]:
        return {path.name: self.publish_file(path)}

    def commit(self, finished: Finished, effect: Effect) -> None:
        """The one transaction that counts. Raises StaleFenceError, DatabaseUnavailableError."""
        with self._database.transaction() as connection:
            state = effect(self._leases(connection))
            reach("worker.before_commit")
        reach("worker.after_commit")
        ended = state if isinstance(state, JobState) else JobState.SUCCEEDED
        _log.info("job %s: %s", finished.claim.job_id, ended)

    def commit_failure(self, claim: Claim, failure: AttemptFailure) -> None:
        """Ends an attempt that left nothing on disk. Raises as ``commit``."""
        finished = Finished(claim=claim, failure=failure, at=time.time())
        self.commit(finished, finished.effect({}))

    def cancel(self, entry: Entry, finished: Finished) -> None:
        """Hands in, instead of the work, that it is no longer wanted. Raises DatabaseUnavailableError."""
        failure = AttemptFailure(outcome=Outcome.CANCELLED, error=failures.CANCELLED)
        try:
            self.commit(finished, lambda leases: leases.fail(finished.claim, failure))
        except StaleFenceError:
            _log.info("job %s: %s", finished.claim.job_id, self._why_stale(finished.claim))
        entry.remove()

    def release(self, claim: Claim) -> None:
        """Gives a job back untouched. Raises StaleFenceError, DatabaseUnavailableError."""
        with self._database.transaction() as connection:
            self._leases(connection).release(claim)

    def renewal(self, claim: Claim, worker_id: str, gpu_uuid: str | None) -> Renew:
        """Renews the claim's lease each time it is called; raises as ``LeaseRepository.renew``."""

        def renew(progress: Progress | None) -> Renewal:
            with self._database.transaction() as connection:
                renewal = self._leases(connection).renew(claim, worker_id, progress, gpu_uuid)
                reach("worker.before_renew_commit")
            return renewal

        return renew

    def knows(self, claim: Claim) -> bool:
        """Whether the farm's database has that job: another farm's worker may share the scratch folder."""
        try:
            with self._database.transaction() as connection:
                JobRepository(connection).get(claim.job_id)
        except NotFoundError:
            return False
        return True

    def _why_stale(self, claim: Claim) -> str:
        """A cut during COMMIT leaves open whether it took effect: the attempt's row tells."""
        with self._database.transaction() as connection:
            outcome = attempt_outcome(connection, claim.job_id, claim.fence)
        if outcome in {None, Outcome.LOST}:
            return "superseded, result discarded"
        return f"its attempt has ended already ({outcome})"

    def _leases(self, connection: Connection) -> LeaseRepository:
        return LeaseRepository(
            connection, lease_seconds=self._settings.lease_seconds, policy=self._settings.retry
        )


def _damaged(finished: Finished, error: Exception) -> Finished:
    message = f"What the job's process had written could not be read back: {error}"
    failure = AttemptFailure(
        outcome=Outcome.FAILED, error=ErrorView(code="WORKER_IO", message=message), retryable=True
    )
    return Finished(claim=finished.claim, failure=failure, at=finished.at)
