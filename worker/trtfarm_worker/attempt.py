"""One attempt, from the claim to its effect: fetch → run the child → seal → publish → commit.

Once the child's answer is sealed in the spool, a kill of this worker costs nothing: see ``spool``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from trtfarm.contract.jobs import JobKind, Outcome
from trtfarm.contract.leases import AttemptFailure, Claim
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import ConfigurationError, DatabaseUnavailableError, StaleFenceError, TrtFarmError
from trtfarm.failpoints import reach
from trtfarm_worker import failures
from trtfarm_worker.benchmark_work import BenchmarkWork
from trtfarm_worker.build_work import BuildWork
from trtfarm_worker.child.log_limit import LogLimit
from trtfarm_worker.child.process import Crashed, Interrupted, TensorRTChild
from trtfarm_worker.child.protocol import Built, ChildRequest, Done, Failed, Measured
from trtfarm_worker.child.stall import Stall
from trtfarm_worker.delivery import LATER, Renew
from trtfarm_worker.finished import Finished
from trtfarm_worker.heartbeat import Heartbeat, deadline
from trtfarm_worker.pauses import Bearing
from trtfarm_worker.spool import Entry
from trtfarm_worker.work import StoppedError, Work, Workshop

_log = logging.getLogger(__name__)
_WORK: dict[JobKind, type[BuildWork | BenchmarkWork]] = {
    JobKind.BUILD: BuildWork,
    JobKind.BENCHMARK: BenchmarkWork,
}


class _Patience:
    """Whether an attempt must end. The job's time runs from the first look on: fetching is not its doing."""

    def __init__(self, shop: Workshop, claim: Claim, heartbeat: Heartbeat) -> None:
        self._shop, self._claim, self._heartbeat = shop, claim, heartbeat
        self._deadline: Callable[[], bool] | None = None

    def timed_out(self) -> bool:
        if self._deadline is None:
            self._deadline = deadline(self._claim.timeout_seconds)
        return self._deadline()

    def verdict(self) -> Outcome | None:
        if self._heartbeat.verdict is not None:
            return self._heartbeat.verdict
        if self.timed_out():
            return Outcome.TIMEOUT
        return Outcome.RELEASED if self._shop.stopping() else None

    # --- of a ``work.Watch`` ---

    def stage(self, name: str) -> None:
        self._heartbeat.progress(Progress(stage=name))

    def check(self) -> None:
        if (outcome := self.verdict()) is not None:
            raise StoppedError(outcome)


class Attempt:
    """Executes one claim on one child."""

    def __init__(self, workshop: Workshop, claim: Claim, child: TensorRTChild) -> None:
        self._shop = workshop
        self._claim = claim
        self._child = child
        self._stalled = False
        self._bearing: Bearing | None = None

    def run(self) -> Bearing | None:
        """Ends the attempt one way or another; errors are recorded with the job, not raised.

        What cannot be recorded now waits in the outbox. Returns how the child bore it; None if the attempt
        does not tell.
        """
        try:
            entry = self._shop.spool.open(self._claim)
        except OSError as error:
            self._shop.delivery.commit_failure(self._claim, failures.of_file(error))
            return None
        try:
            with Heartbeat(self._renewal(), self._shop.settings.heartbeat_seconds) as heartbeat:
                finished = self._execute(heartbeat, entry)
                handed_in = self._hand_in(entry, finished) if finished else self._release(entry)
        except StaleFenceError:
            _log.warning("job %s: superseded, result discarded", self._claim.job_id)
            entry.remove()
        except BaseException:
            entry.leave()
            raise
        else:
            if finished and not handed_in:
                self._shop.outbox.add(entry, finished)
        return self._bearing

    def _execute(self, heartbeat: Heartbeat, entry: Entry) -> Finished | None:
        """Runs the child and seals what came of it. None: the worker stops; the job is to be given back."""
        try:
            work: Work = _WORK[self._claim.kind](self._shop, self._claim, entry.path)
            entry.log_path.touch()
            patience = _Patience(self._shop, self._claim, heartbeat)
            with work.request(patience) as request:
                reach("worker.after_fetch")
                outcome = self._supervise(heartbeat, patience, request)
            reach("worker.after_child_exit")
            if isinstance(outcome, Built | Measured):
                heartbeat.progress(Progress(stage="publishing"))
                finished = entry.seal(work.finished(outcome))
                reach("worker.after_seal")
                return self._share(heartbeat, work, entry, finished)
            if isinstance(outcome, Interrupted) and outcome.outcome is Outcome.RELEASED:
                return None
            failure = self._without_result(outcome)
        except StaleFenceError:
            raise
        except StoppedError as stopped:
            if stopped.outcome is Outcome.RELEASED:
                return None
            self._stalled = stopped.stalled
            failure = self._without_result(Interrupted(stopped.outcome))
        except TrtFarmError as error:
            failure = failures.of_farm(error)
        except OSError as error:
            failure = failures.of_file(error)
        except Exception as error:  # noqa: BLE001 - recorded with the job, tried elsewhere
            _log.exception("job %s", self._claim.job_id)
            failure = failures.of_worker(error)
        finished = Finished(claim=self._claim, failure=failure, at=time.time())
        with contextlib.suppress(
            OSError
        ):  # a full disk, most likely: then it is told without having lain there
            finished = entry.seal(finished)
        return finished

    def _share(self, heartbeat: Heartbeat, work: Work, entry: Entry, finished: Finished) -> Finished:
        """With the help of the child, which is still there. A failure here costs the result nothing."""
        try:
            shared = work.share(finished, lambda request: self._combine(heartbeat, request))
            return finished if shared == finished else entry.seal(shared)
        except Exception:  # noqa: BLE001
            _log.exception("job %s: nothing is shared of it but its result", self._claim.job_id)
            return finished

    def _supervise(
        self, heartbeat: Heartbeat, patience: _Patience, request: ChildRequest
    ) -> Done | Failed | Crashed | Interrupted:
        stalled = Stall(
            self._shop.settings.no_progress_seconds, Path(request.log_path), self._child.cpu_seconds
        )

        log_limit = LogLimit(Path(request.log_path), self._shop.settings.log_bytes)

        def interruption() -> Outcome | None:
            log_limit.look()
            return patience.verdict() or (Outcome.TIMEOUT if stalled() else None)

        def progress(told: Progress) -> None:
            stalled.heard()
            heartbeat.progress(told)

        outcome = self._ask_child(request, interruption, progress)
        log_limit.apply()
        self._stalled = outcome == Interrupted(Outcome.TIMEOUT) and not patience.timed_out()
        if isinstance(outcome, Interrupted):
            self._bearing = Bearing.CRASHED if self._stalled else None
        elif isinstance(outcome, Failed) and failures.is_the_gpus(outcome.error):
            self._bearing = Bearing.BROKEN
        else:
            self._bearing = Bearing.CRASHED if isinstance(outcome, Crashed) else Bearing.SOUND
        return outcome

    def _ask_child(
        self,
        request: ChildRequest,
        interruption: Callable[[], Outcome | None],
        progress: Callable[[Progress], None],
    ) -> Done | Failed | Crashed | Interrupted:
        try:
            return self._child.run(request, interruption, progress, self._claim.submitter)
        except ConfigurationError:  # a child does not start any more
            self._bearing = Bearing.BROKEN
            raise

    def _combine(self, heartbeat: Heartbeat, request: ChildRequest) -> Done | Failed | None:
        patience = _Patience(self._shop, self._claim, heartbeat)
        outcome = self._supervise(heartbeat, patience, request)
        return None if isinstance(outcome, Crashed | Interrupted) else outcome

    def _without_result(self, outcome: Done | Failed | Crashed | Interrupted) -> AttemptFailure:
        if isinstance(outcome, Interrupted):
            if outcome.outcome is Outcome.LOST:
                raise StaleFenceError
            if self._stalled:
                return failures.of_stall(self._shop.settings.no_progress_seconds)
            return AttemptFailure(outcome=outcome.outcome, error=self._interruption(outcome.outcome))
        if isinstance(outcome, Crashed):
            return AttemptFailure(outcome=Outcome.CRASHED, error=outcome.error, retryable=True)
        if isinstance(outcome, Failed):
            return AttemptFailure(outcome=Outcome.FAILED, error=outcome.error, retryable=outcome.retryable)
        raise ValueError(f"The child answered {outcome.event}.")

    def _interruption(self, outcome: Outcome) -> ErrorView:
        if outcome is Outcome.TIMEOUT:
            return ErrorView(
                code="BUILD_TIMEOUT",
                message=f"The job did not end within {self._claim.timeout_seconds:g} seconds.",
                hint="Submit it again with a larger --timeout.",
            )
        return failures.CANCELLED

    def _hand_in(self, entry: Entry, finished: Finished) -> bool:
        """False: not now."""
        try:
            self._shop.delivery.hand_in(entry, finished)
        except LATER as error:
            _log.warning("job %s: finished, and waits to be handed in: %s", self._claim.job_id, error)
            return False
        return True

    def _release(self, entry: Entry) -> bool:
        try:
            self._shop.delivery.release(self._claim)
        except DatabaseUnavailableError as error:
            _log.warning("job %s: not given back (%s); its lease will run out", self._claim.job_id, error)
        entry.remove()
        return True

    def _renewal(self) -> Renew:
        return self._shop.delivery.renewal(self._claim, self._shop.worker_id, self._shop.gpu_uuid)
