"""The thread that keeps a lease alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import Renewal
from trtfarm.contract.v1 import Progress
from trtfarm.errors import DatabaseUnavailableError, GpuBusyError, StaleFenceError
from trtfarm_worker.heartbeat import Heartbeat, deadline

SECONDS = 10


class Farm:
    """Answers renewals one after another, the last one again and again; each is an answer or an error."""

    def __init__(self, *answers: Renewal | Exception) -> None:
        self._answers = list(answers)
        self._changed = threading.Condition()
        self.renewals: list[Progress | None] = []

    def renew(self, progress: Progress | None) -> Renewal:
        with self._changed:
            self.renewals.append(progress)
            self._changed.notify_all()
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, enough: Callable[[list[Progress | None]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.renewals), SECONDS)


GOOD = Renewal(cancel_requested=False)
CANCEL = Renewal(cancel_requested=True)


def verdict(heartbeat: Heartbeat) -> Outcome:
    end = time.monotonic() + SECONDS
    while heartbeat.verdict is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    return heartbeat.verdict


def test_it_renews_again_and_again() -> None:
    farm, before = Farm(GOOD), set(threading.enumerate())
    with Heartbeat(farm.renew, 0.01) as heartbeat:
        farm.wait(lambda renewals: len(renewals) >= 5)
        assert heartbeat.verdict is None
    assert not set(threading.enumerate()) - before


def test_progress_is_told_before_the_next_renewal_is_due() -> None:
    farm = Farm(GOOD)
    with Heartbeat(farm.renew, 3600) as heartbeat:
        heartbeat.progress(Progress(stage="building", fraction=0.5))
        farm.wait(lambda renewals: renewals == [Progress(stage="building", fraction=0.5)])


def test_much_progress_is_told_now_and_then() -> None:
    farm = Farm(GOOD)
    with Heartbeat(farm.renew, 0.2) as heartbeat:
        for step in range(100_000):
            heartbeat.progress(Progress(stage="building", fraction=step / 100_000))
        farm.wait(
            lambda renewals: bool(renewals) and renewals[-1] == Progress(stage="building", fraction=0.99999)
        )
    assert len(farm.renewals) < 100


def test_leaving_does_not_wait_for_the_interval() -> None:
    began_at = time.monotonic()
    with Heartbeat(Farm(GOOD).renew, 3600):
        pass
    assert time.monotonic() - began_at < SECONDS


def test_a_wish_to_cancel() -> None:
    with Heartbeat(Farm(GOOD, CANCEL).renew, 0.01) as heartbeat:
        assert verdict(heartbeat) is Outcome.CANCELLED


def test_a_lost_lease_ends_it() -> None:
    farm = Farm(GOOD, StaleFenceError())
    with Heartbeat(farm.renew, 0.01) as heartbeat:
        assert verdict(heartbeat) is Outcome.LOST
    assert len(farm.renewals) == 2


def test_it_gives_way_to_another_job_on_its_gpu() -> None:
    with Heartbeat(Farm(GOOD, GpuBusyError()).renew, 0.01) as heartbeat:
        assert verdict(heartbeat) is Outcome.LOST


@pytest.mark.parametrize("error", [DatabaseUnavailableError(), ValueError("a defect")])
def test_it_outlives_an_error(error: Exception) -> None:
    farm = Farm(GOOD, error, error, CANCEL)
    with Heartbeat(farm.renew, 0.01) as heartbeat:
        assert verdict(heartbeat) is Outcome.CANCELLED


def test_deadline() -> None:
    assert not deadline(3600)()
    assert deadline(-1)()
