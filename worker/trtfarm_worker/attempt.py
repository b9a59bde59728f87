"""One attempt, from the claim to its effect: fetch → run → publish → finish."""

from __future__ import annotations

import logging
import shutil
import time

from sqlalchemy import Connection

from trtfarm.contract.jobs import JobKind, JobState, Outcome
from trtfarm.contract.leases import AttemptFailure, Claim, Renewal
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
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_worker.benchmark_work import BenchmarkWork
from trtfarm_worker.build_work import BuildWork
from trtfarm_worker.heartbeat import Heartbeat, deadline
from trtfarm_worker.isolation import Crashed, Interrupted, TensorRTChild
from trtfarm_worker.protocol import ChildRequest, Done, Failed
from trtfarm_worker.work import Effect, Work, Workshop

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_WORK: dict[JobKind, type[BuildWork | BenchmarkWork]] = {
    JobKind.BUILD: BuildWork,
    JobKind.BENCHMARK: BenchmarkWork,
}


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

    def _execute(self, heartbeat: Heartbeat) -> Effect:
        """Does the work and returns what is to be committed."""
        try:
            work: Work = _WORK[self._claim.kind](self._shop, self._claim, self._folder, self._log_path)
            with work.request(lambda stage: heartbeat.progress(Progress(stage=stage))) as request:
                outcome = self._supervise(heartbeat, request)
            if isinstance(outcome, Done):
                heartbeat.progress(Progress(stage="publishing"))
                return work.effect(outcome, lambda each: self._combine(heartbeat, each))
            return self._without_result(outcome)
        except StaleFenceError:
            raise
        except TrtFarmError as error:
            failure = _failure(error)
        except OSError as error:
            failure = _infrastructure("WORKER_IO", f"The worker could not read or write a file: {error}")
        except Exception as error:  # noqa: BLE001 - recorded with the job, tried elsewhere
            _log.exception("job %s", self._claim.job_id)
            failure = _infrastructure("INTERNAL", f"The worker failed: {error!r}")
        return lambda leases: leases.fail(self._claim, failure)

    def _supervise(
        self, heartbeat: Heartbeat, request: ChildRequest
    ) -> Done | Failed | Crashed | Interrupted:
        timed_out = deadline(self._claim.timeout_seconds)

        def interruption() -> Outcome | None:
            if heartbeat.verdict is not None:
                return heartbeat.verdict
            if timed_out():
                return Outcome.TIMEOUT
            return Outcome.RELEASED if self._shop.stopping() else None

        return self._child.run(request, interruption, heartbeat.progress)

    def _combine(self, heartbeat: Heartbeat, request: ChildRequest) -> Done | Failed | None:
        outcome = self._supervise(heartbeat, request)
        return None if isinstance(outcome, Crashed | Interrupted) else outcome

    def _without_result(self, outcome: Failed | Crashed | Interrupted) -> Effect:
        claim, log = self._claim, self._shop.publish(self._log_path)
        if isinstance(outcome, Interrupted):
            if outcome.outcome is Outcome.RELEASED:
                return lambda leases: leases.release(claim)
            if outcome.outcome is Outcome.LOST:
                raise StaleFenceError
            failure = AttemptFailure(
                outcome=outcome.outcome, error=self._interruption(outcome.outcome), log=log
            )
        elif isinstance(outcome, Crashed):
            failure = AttemptFailure(outcome=Outcome.CRASHED, error=outcome.error, retryable=True, log=log)
        else:
            failure = AttemptFailure(
                outcome=Outcome.FAILED, error=outcome.error, retryable=outcome.retryable, log=log
            )
        return lambda leases: leases.fail(claim, failure)

    def _interruption(self, outcome: Outcome) -> ErrorView:
        if outcome is Outcome.TIMEOUT:
            return ErrorView(
                code="BUILD_TIMEOUT",
                message=f"The job did not end within {self._claim.timeout_seconds:g} seconds.",
                hint="Submit it again with a larger --timeout.",
            )
        return ErrorView(code="CANCELLED", message="The job was cancelled.")

    def _renew(self, progress: Progress | None) -> Renewal:
        with self._shop.database.transaction() as connection:
            return self._leases(connection).renew(
                self._claim, self._shop.worker_id, progress, self._shop.gpu_uuid
            )

    def _commit(self, effect: Effect) -> None:
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


def _failure(error: TrtFarmError) -> AttemptFailure:
    view = ErrorView(code=error.code, message=error.message, hint=error.hint)
    if isinstance(error, NotFoundError | BlobCorruptError):
        view = ErrorView(
            code="INPUT_LOST",
            message=f"What the job needs is missing or damaged in the artifact store: {error.message}",
            hint="Upload the model (or build the plan) again, then retry the job.",
        )
    # ConfigurationError: the child could not be started again, here and now.
    retryable = isinstance(error, UnavailableError | StorageFullError | ConfigurationError)
    return AttemptFailure(outcome=Outcome.FAILED, error=view, retryable=retryable)


def _infrastructure(code: str, message: str) -> AttemptFailure:
    return AttemptFailure(outcome=Outcome.FAILED, error=ErrorView(code=code, message=message), retryable=True)
