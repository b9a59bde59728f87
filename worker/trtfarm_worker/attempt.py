"""One attempt, from the claim to its effect: fetch → build → publish → finish."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState, Outcome
from trtfarm.contract.leases import AttemptFailure, BuildResult, Claim, PublishedBlob, Renewal
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import (
    BlobCorruptError,
    ConfigurationError,
    DatabaseUnavailableError,
    NotFoundError,
    StaleFenceError,
    StorageFullError,
    TrtFarmError,
    UnavailableError,
)
from trtfarm.store import ArtifactStore
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_worker.heartbeat import Heartbeat, deadline
from trtfarm_worker.isolation import Crashed, Interrupted, TensorRTChild
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.protocol import BuildRequest, Built, Failed
from trtfarm_worker.settings import WorkerSettings

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Workshop:
    """What the attempts of one worker share. ``folder`` is the worker's own."""

    worker_id: str
    folder: Path
    settings: WorkerSettings
    database: Database
    store: ArtifactStore
    models: ModelCache
    stopping: Callable[[], bool]


class Attempt:
    """Executes one claim on one child."""

    def __init__(self, workshop: Workshop, claim: Claim, child: TensorRTChild) -> None:
        self._shop = workshop
        self._claim = claim
        self._child = child
        self._folder = workshop.folder / f"{claim.job_id}.{claim.fence}"
        self._log_path = self._folder / "build.log"

    def run(self) -> None:
        """Ends the attempt one way or another; errors are recorded with the job, not raised."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log_path.touch()
        try:
            with Heartbeat(self._renew, self._shop.settings.heartbeat_seconds) as heartbeat:
                effect = self._execute(heartbeat)
                self._commit(effect)
        except StaleFenceError:
            _log.warning("job %s: superseded, result discarded", self._claim.job_id)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _execute(self, heartbeat: Heartbeat) -> Callable[[LeaseRepository], object]:
        """Does the work and returns what is to be committed."""
        manifest = None
        try:
            with self._shop.database.transaction() as connection:
                manifest = ModelRepository(connection).manifest(self._claim.spec.model)
            heartbeat.progress(Progress(stage="fetching model"))
            with self._shop.models.model(manifest) as model:
                outcome = self._build(heartbeat, model)
            return self._effect(outcome, heartbeat)
        except StaleFenceError:
            raise
        except TrtFarmError as error:
            failure = self._failure(error, manifest)
        except OSError as error:
            failure = _infrastructure("WORKER_IO", f"The worker could not read or write a file: {error}")
        except Exception as error:  # noqa: BLE001 - recorded with the job, tried elsewhere
            _log.exception("job %s", self._claim.job_id)
            failure = _infrastructure("INTERNAL", f"The worker failed: {error!r}")
        return lambda leases: leases.fail(self._claim, failure)

    def _build(self, heartbeat: Heartbeat, model: Path) -> Built | Failed | Crashed | Interrupted:
        timed_out = deadline(self._claim.timeout_seconds)

        def interruption() -> Outcome | None:
            if heartbeat.verdict is not None:
                return heartbeat.verdict
            if timed_out():
                return Outcome.TIMEOUT
            return Outcome.RELEASED if self._shop.stopping() else None

        request = BuildRequest(
            spec=self._claim.spec,
            model_path=str(model),
            plan_path=str(self._folder / "plan"),
            io_path=str(self._folder / "io.json"),
            log_path=str(self._log_path),
        )
        return self._child.build(request, interruption, heartbeat.progress)

    def _effect(
        self, outcome: Built | Failed | Crashed | Interrupted, heartbeat: Heartbeat
    ) -> Callable[[LeaseRepository], object]:
        claim = self._claim
        if isinstance(outcome, Built):
            heartbeat.progress(Progress(stage="publishing"))
            paths = (self._folder / "plan", self._folder / "io.json", self._log_path)
            with ThreadPoolExecutor(len(paths)) as pool:  # each waits for the disk, or for S3
                plan, io, log = pool.map(self._publish, paths)
            result = BuildResult(plan=plan, io=io, log=log, build_seconds=outcome.build_seconds)
            return lambda leases: leases.finish(claim, result)
        if isinstance(outcome, Interrupted):
            if outcome.outcome is Outcome.RELEASED:
                return lambda leases: leases.release(claim)
            if outcome.outcome is Outcome.LOST:
                raise StaleFenceError
            failure = self._interrupted(outcome.outcome)
        elif isinstance(outcome, Crashed):
            failure = AttemptFailure(
                outcome=Outcome.CRASHED,
                error=outcome.error,
                retryable=True,
                log=self._publish(self._log_path),
            )
        else:
            failure = AttemptFailure(
                outcome=Outcome.FAILED,
                error=outcome.error,
                retryable=outcome.retryable,
                log=self._publish(self._log_path),
            )
        return lambda leases: leases.fail(claim, failure)

    def _interrupted(self, outcome: Outcome) -> AttemptFailure:
        if outcome is Outcome.TIMEOUT:
            error = ErrorView(
                code="BUILD_TIMEOUT",
                message=f"The build did not end within {self._claim.timeout_seconds:g} seconds.",
                hint="Submit it again with a larger --timeout.",
            )
        else:
            error = ErrorView(code="CANCELLED", message="The job was cancelled.")
        return AttemptFailure(outcome=outcome, error=error, log=self._publish(self._log_path))

    def _failure(self, error: TrtFarmError, manifest: ModelManifest | None) -> AttemptFailure:
        view = ErrorView(code=error.code, message=error.message, hint=error.hint)
        if manifest is not None and isinstance(error, NotFoundError | BlobCorruptError):
            view = ErrorView(
                code="MODEL_LOST",
                message=f"The model's files are missing or damaged in the artifact store: {error.message}",
                hint="Upload the model again, then retry the job.",
            )
        # ConfigurationError: the child could not be started again, here and now.
        retryable = isinstance(error, UnavailableError | StorageFullError | ConfigurationError)
        return AttemptFailure(outcome=Outcome.FAILED, error=view, retryable=retryable)

    def _publish(self, path: Path) -> PublishedBlob:
        with path.open("rb") as file:
            digest = Digest.of_file(file)
        blob = self._shop.store.put_file(path, digest, path.stat().st_size)
        return PublishedBlob(digest=digest, size_bytes=blob.size_bytes, etag=blob.etag)

    def _renew(self, progress: Progress | None) -> Renewal:
        with self._shop.database.transaction() as connection:
            leases = self._leases(connection)
            return leases.renew(self._claim, self._shop.worker_id, progress)

    def _commit(self, effect: Callable[[LeaseRepository], object]) -> None:
        """Waits out a database that does not answer: the work is done and must not be lost."""
        given_up = deadline(self._shop.settings.partition_seconds)
        while True:
            try:
                with self._shop.database.transaction() as connection:
                    state = effect(self._leases(connection))
                ended = state if isinstance(state, JobState) else "done"
                _log.info("job %s: %s", self._claim.job_id, ended)
                return
            except DatabaseUnavailableError:
                if given_up() or self._shop.stopping():
                    raise
                _log.warning("job %s: waiting for the database to take the result", self._claim.job_id)
                time.sleep(_RETRY_SECONDS)

    def _leases(self, connection: Connection) -> LeaseRepository:
        settings = self._shop.settings
        return LeaseRepository(connection, lease_seconds=settings.lease_seconds, policy=settings.retry)


def _infrastructure(code: str, message: str) -> AttemptFailure:
    return AttemptFailure(outcome=Outcome.FAILED, error=ErrorView(code=code, message=message), retryable=True)
