"""TensorRT in processes of their own: kept warm, killed when they must be, and never shared by submitters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trtfarm.contract.jobs import Outcome
from trtfarm.contract.v1 import Progress
from trtfarm.errors import ConfigurationError
from trtfarm_worker.child.handle import ChildProcess, Crashed, GpuHold
from trtfarm_worker.child.protocol import (
    BenchmarkRequest,
    ChildRequest,
    Done,
    Ended,
    Failed,
    Progressed,
    Ready,
)
from trtfarm_worker.settings import WorkerSettings

__all__ = ["Crashed", "GpuHold", "Interrupted", "TensorRTChild"]


class Interrupted(NamedTuple):
    """The attempt was stopped from outside: timed out, cancelled, fenced, or the worker stops."""

    outcome: Outcome


class _StoppedError(Exception):
    """Unwinds to ``run`` when the attempt must stop, wherever the child stands."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class TensorRTChild:
    """The child of one slot; ``start`` and ``run`` replace it when that is needed.

    A child that forks gives each request a process of its own. One that does not, as it holds a GPU, serves
    one submitter: the next one gets a fresh child, which ``warm`` has started meanwhile.

    Not thread safe: one slot owns one child.
    """

    def __init__(self, settings: WorkerSettings, gpu: GpuHold | None = None) -> None:
        self._settings = settings
        self._gpu = gpu
        self._child: ChildProcess | None = None
        self._spare: ChildProcess | None = None

    def start(self, check: Callable[[], None] = lambda: None) -> Ready:
        """Starts a fresh child and waits until TensorRT is loaded.

        ``check`` is called now and then meanwhile, and may raise.

        Raises:
            ConfigurationError: it cannot be loaded or confined, or not in ``child_start_seconds``.
            OSError: the scratch folder cannot be used.
        """
        self._end_child()
        return self._wait(ChildProcess(self._settings, self._gpu), check)

    def warm(self) -> None:
        """Starts what the next job would have to wait for. See ``start``."""
        if self._child is None or not self._child.is_running:
            self.start()
        elif not self._child.forks and self._child.served is not None and self._spare is None:
            self._spare = ChildProcess(self._settings, self._gpu)  # loads while nobody waits for it

    def run(
        self,
        request: ChildRequest,
        interruption: Callable[[], Outcome | None],
        on_progress: Callable[[Progress], None],
        submitter: str = "",
    ) -> Done | Failed | Crashed | Interrupted:
        """Runs one request; when ``interruption`` tells an outcome, the child is killed at once.

        ``submitter``: on whose behalf; empty for the worker's own, which leaves no trace of anybody.

        Raises:
            ConfigurationError: a new child was needed, and did not start.
            OSError: the request's files could not be put before the child.
        """

        def check() -> None:
            if (outcome := interruption()) is not None:
                raise _StoppedError(outcome)

        try:
            child = self._child_for(submitter, check)
            if isinstance(request, BenchmarkRequest):
                self._quieten(check)
            with child.box.holding(request) as held:
                child.send(held)
                return self._follow(child, on_progress, check)
        except _StoppedError as stopped:
            self._end_child()
            return Interrupted(stopped.outcome)

    def _child_for(self, submitter: str, check: Callable[[], None]) -> ChildProcess:
        child = self._child
        if child is not None and not child.forks and child.served not in {None, submitter}:
            self._end_child()
            child, self._spare = self._spare, None
        if child is None or not child.is_running:
            self._end_child()
            child = ChildProcess(self._settings, self._gpu)
        self._wait(child, check)
        child.served = submitter or child.served
        return child

    def _quieten(self, check: Callable[[], None]) -> None:
        """Nothing else may load on a GPU that is measured."""
        if self._spare is not None:
            try:
                self._spare.wait_until_ready(check)
            except ConfigurationError:  # the next job will say so, if it needs one
                self._spare.kill()
                self._spare = None

    def _wait(self, child: ChildProcess, check: Callable[[], None]) -> Ready:
        self._child = child
        try:
            return child.wait_until_ready(check)
        except BaseException:
            self._end_child()
            raise

    def _follow(
        self, child: ChildProcess, on_progress: Callable[[Progress], None], check: Callable[[], None]
    ) -> Done | Failed | Crashed:
        answer: Done | Failed | None = None
        while True:
            message = child.receive()
            if isinstance(message, Crashed):
                self._end_child()
                return message
            if isinstance(message, Ended):
                child.forget_messages()
                return answer if answer and message.status == 0 else Crashed(message.status)
            if isinstance(message, Done | Failed):
                answer = answer or message
                if not child.forks:
                    self._recycle(child, answer)
                    return answer
            if isinstance(message, Progressed):
                on_progress(Progress(stage=message.stage, fraction=message.fraction))
            check()

    def _recycle(self, child: ChildProcess, answer: Done | Failed) -> None:
        if isinstance(answer, Failed):
            unfit = answer.tainted
        else:
            unfit = answer.rss_bytes > self._settings.child_max_rss_bytes
        if unfit or child.requests >= self._settings.child_max_builds:
            self._end_child()

    def cpu_seconds(self) -> float:
        """What the child at hand has used so far."""
        return self._child.cpu_seconds() if self._child else 0.0

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def kill(self) -> None:
        """Ends the child, its spare and everything they started. Harmless if there is none."""
        self._end_child()
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
