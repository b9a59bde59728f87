"""When jobs start and end, from what is known of earlier ones; and that nothing is made up."""

from __future__ import annotations

import pytest

from trtfarm.cli.waiting import duration
from trtfarm.contract.forecast import Forecast, QueueSnapshot, Running, Spread, Waiting, Work, beyond, outlook
from trtfarm.contract.jobs import JobKind

QUEUE = "tensorrt-8.6.0.h200"
MODEL = Work(QUEUE, JobKind.BUILD, "sha256:a")
OTHER = MODEL._replace(model="sha256:b")
STEADY = [100.0] * 5


def waiting(name: str, work: Work = MODEL, *, delay: float = 0, quota: str = "") -> Waiting:
    return Waiting(name, work, 0, delay, quota)


def forecasts(*jobs: Waiting, running: tuple[Running, ...] = (), slots: int = 1, **history: list[float]):
    known = {MODEL: history.get("model", []), MODEL.target: history.get("target", [])}
    snapshot = QueueSnapshot((QUEUE,), slots, running, jobs, whole=True, history=known, quotas={"key": 1})
    return outlook(snapshot).forecasts


def middle(spread: Spread | None) -> float | None:
    return spread and spread.p50


def test_one_slot_takes_one_after_another():
    found = forecasts(waiting("a"), waiting("b"), waiting("c"), model=STEADY)
    assert [middle(found[name].starts) for name in "abc"] == [0, 100, 200]
    assert [middle(found[name].ends) for name in "abc"] == [100, 200, 300]
    assert {(each.basis, each.samples, each.waiting_for) for each in found.values()} == {("model", 5, "slot")}


def test_more_slots_share_the_line():
    found = forecasts(*map(waiting, "abcde"), slots=2, model=STEADY)
    assert [middle(found[name].starts) for name in "abcde"] == [0, 0, 100, 100, 200]


def test_running_jobs_are_waited_for():
    running = (Running("x", MODEL, 70.0), Running("y", MODEL, 20.0))
    found = forecasts(waiting("a"), waiting("b"), running=running, slots=2, model=STEADY)
    assert [middle(found[name].ends) for name in "xy"] == [30, 80]
    assert [middle(found[name].starts) for name in "ab"] == [30, 80]
    assert found["x"].starts is None


def test_what_is_left_is_of_those_that_took_longer():
    found = forecasts(running=(Running("x", MODEL, 50.0),), model=[10, 20, 60, 70, 80])
    assert middle(found["x"].ends) == 20


def test_overdue_has_no_end_but_holds_up_those_behind_it():
    found = forecasts(waiting("a"), running=(Running("x", MODEL, 101.0),), model=STEADY)
    assert found["x"].overdue
    assert found["x"].ends is None
    assert middle(found["a"].starts) == 100


def test_the_spread_grows_along_the_line():
    found = forecasts(*map(waiting, "abc"), model=[80, 90, 100, 110, 120])
    widths = [found[name].ends.p90 - found[name].ends.p10 for name in "abc"]
    assert 35 < widths[0] < widths[1] < widths[2] < 3 * widths[0]
    assert found["a"].ends.p10 < 100 < found["a"].ends.p90


def test_a_spread_needs_three_jobs():
    spread = forecasts(waiting("a"), model=[90, 110])["a"].ends
    assert spread == Spread(p10=None, p50=100, p90=None)


def test_the_target_answers_for_a_model_it_has_not_built():
    found = forecasts(waiting("a", OTHER), waiting("b"), model=[10.0], target=[50.0] * 4)
    assert (found["a"].basis, found["a"].samples, middle(found["a"].ends)) == ("target", 4, 50)
    assert (found["b"].basis, found["b"].samples, middle(found["b"].ends)) == ("model", 1, 60)


def test_without_a_past_nothing_is_made_up():
    found = forecasts(waiting("a"), waiting("b"), running=(Running("x", MODEL, 1.0),), slots=2)
    assert found["x"] == Forecast(slots=2)
    assert (middle(found["a"].starts), found["a"].ends, found["a"].basis) == (0, None, None)  # a slot is free
    assert (found["b"].starts, found["b"].ends) == (None, None)


def test_a_job_of_unknown_length_keeps_its_slot_only():
    found = forecasts(waiting("a", OTHER), *map(waiting, "bc"), slots=2, model=STEADY)
    assert [middle(found[name].starts) for name in "bc"] == [0, 100]


def test_without_workers_nothing_starts():
    found = forecasts(waiting("a"), slots=0, model=STEADY)["a"]
    assert (found.waiting_for, found.starts, found.ends) == ("worker", None, None)


def test_a_pause_after_a_failure_is_waited_for():
    found = forecasts(waiting("a", delay=30), model=STEADY)["a"]
    assert (found.waiting_for, middle(found.starts)) == ("retry", 30)


def test_a_job_over_its_quota_waits_for_its_own_and_holds_up_nobody():
    mine = [waiting(name, quota="key") for name in "ab"]
    found = forecasts(*mine, waiting("c"), slots=2, model=STEADY)
    assert [(found[name].waiting_for, middle(found[name].starts)) for name in "abc"] == [
        ("slot", 0),
        ("quota", 100),
        ("slot", 100),  # the work of b is still to be done
    ]


def test_a_quota_counts_what_runs_elsewhere():
    elsewhere = Running("x", MODEL._replace(queue="tensorrt-8.6.0.l4"), 0.0, "key")
    found = forecasts(waiting("a", quota="key"), running=(elsewhere,), slots=1, model=STEADY)
    assert (found["a"].waiting_for, found["a"].starts) == ("quota", None)  # of l4 nothing is known


def test_far_back_the_line_goes_on_at_its_pace():
    jobs = tuple(waiting(str(number)) for number in range(1000))
    known = outlook(QueueSnapshot((QUEUE,), 4, (), jobs, whole=False, history={MODEL: STEADY}))
    found = beyond(known, 4, 5000, at_least=False)
    assert found.starts is not None
    assert found.starts.p50 == pytest.approx(5000 / 4 * 100, rel=0.02)
    assert beyond(known, 4, 10_000, at_least=True).starts is None
    assert beyond(known, 0, 5000, at_least=False).waiting_for == "worker"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (5300, "88 min"), (7200, "2 h"), (3 * 86400, "3 days")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
