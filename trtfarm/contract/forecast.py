"""When a queued job will start and a live one will end, told from what was built before.

Nothing is invented: without past jobs on the same target the answer is that it is not known.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import fsum, inf, isfinite, isinf, isnan, nan, sqrt
from statistics import fmean
from typing import Literal, NamedTuple

from trtfarm.contract.jobs import JobKind
from trtfarm.contract.value import Value

_P90 = 1.2816  # standard deviations from the mean to the 90th percentile of a normal distribution
_LEAST_FOR_SPREAD = 3


class Spread(Value):
    """Seconds from now. ``p10`` and ``p90`` are None while too few jobs are known to tell them."""

    p10: float | None
    p50: float
    p90: float | None


class Forecast(Value):
    """What a live job may expect.

    Attributes:
        waiting_for: why a queued job does not run: all slots are busy, no worker that serves its queue is
            there and ready, its API key's jobs have reached their quota, or the pause after a failed attempt.
        slots: of the workers that are there and serve the job's queue, with the other queues they serve;
            without those that pause.
        position_at_least: so many jobs are before it that they were not all counted.
        starts, ends: None when not known.
        basis: whose past jobs were asked: those of the same model on this target, or all on this target.
        samples: how many those are.
        overdue: a running job has taken longer than all of them.
    """

    waiting_for: Literal["slot", "worker", "quota", "retry"] | None = None
    slots: int
    position_at_least: bool = False
    starts: Spread | None = None
    ends: Spread | None = None
    basis: Literal["model", "target"] | None = None
    samples: int = 0
    overdue: bool = False


class Work(NamedTuple):
    """What decides how long a job takes. ``model`` None: all models of the target."""

    queue: str
    kind: JobKind
    model: str | None

    @property
    def target(self) -> Work:
        return self._replace(model=None)


class Running(NamedTuple):
    """``quota``: the API key against whose limit it counts; empty if there is no limit."""

    job_id: str
    work: Work
    elapsed_seconds: float
    quota: str = ""


class Waiting(NamedTuple):
    """``delay_seconds``: until it may be claimed."""

    job_id: str
    work: Work
    priority: int
    delay_seconds: float
    quota: str = ""


@dataclass(frozen=True)
class QueueSnapshot:
    """The queues that share their workers, at one moment.

    Attributes:
        running: also what counts against a quota in other queues.
        waiting: in the order in which they will be claimed.
        whole: ``waiting`` has all of them, not only the first ones.
        history: seconds that past jobs took, newest first.
        quotas: how many jobs of an API key may run at a time.
    """

    queues: tuple[str, ...]
    slots: int
    running: tuple[Running, ...]
    waiting: tuple[Waiting, ...]
    whole: bool
    history: Mapping[Work, Sequence[float]]
    quotas: Mapping[str, int] = field(default_factory=dict)


class Outlook(NamedTuple):
    """The forecasts of a snapshot. ``pace_seconds``: from one start to the next at the end of the line."""

    forecasts: Mapping[str, Forecast]
    positions: Mapping[str, int]
    pace_seconds: float


class _Estimate(NamedTuple):
    """``mean`` is infinite when not known; ``variance`` is NaN then, or when too few jobs tell it."""

    mean: float
    variance: float

    def plus(self, other: _Estimate) -> _Estimate:
        return _Estimate(self.mean + other.mean, self.variance + other.variance)

    def spread(self) -> Spread | None:
        if not isfinite(self.mean):
            return None
        if isnan(self.variance):
            return Spread(p10=None, p50=round(self.mean, 1), p90=None)
        wide = _P90 * sqrt(self.variance)
        low, high = max(0.0, self.mean - wide), self.mean + wide
        return Spread(p10=round(low, 1), p50=round(self.mean, 1), p90=round(high, 1))


_NOW = _Estimate(0.0, 0.0)
_UNKNOWN = _Estimate(inf, nan)


def outlook(snapshot: QueueSnapshot) -> Outlook:
    """Lets the slots take the waiting jobs one after another, each for as long as such jobs take.

    Means and variances add up along a slot; a running job is expected to go on as long as those did that
    took longer than it has until now. The oldest job's turn (every tenth claim) is not foreseen.
    """
    forecasts: dict[str, Forecast] = {}
    positions: dict[str, int] = {}
    slots: list[_Estimate] = []
    length = cache(partial(_length, snapshot.history))  # many jobs are of few kinds
    held: dict[str, list[_Estimate]] = {key: [] for key in snapshot.quotas}
    for job in snapshot.running:
        rest, overdue, basis, samples = _rest(snapshot.history, job)
        forecasts[job.job_id] = Forecast(
            slots=snapshot.slots,
            ends=None if overdue else rest.spread(),
            basis=basis,
            samples=samples,
            overdue=overdue,
        )
        if job.work.queue in snapshot.queues:
            slots.append(rest)
        if job.quota in held:
            held[job.quota].append(rest)
    slots = _line(slots, snapshot.slots)
    lines = {key: _line(rests, snapshot.quotas[key]) for key, rests in held.items()}
    last = _NOW
    for position, each in enumerate(snapshot.waiting):
        positions[each.job_id] = position
        taken, basis, samples = length(each.work)
        if not slots:
            forecasts[each.job_id] = Forecast(
                waiting_for="worker", slots=snapshot.slots, basis=basis, samples=samples
            )
            continue
        waiting_for: Literal["slot", "quota", "retry"] = "slot"
        start = begun = heapq.heappop(slots)
        if start.mean < each.delay_seconds:
            waiting_for, start = "retry", _Estimate(each.delay_seconds, 0.0)
        mine = lines.get(each.quota)
        if mine is not None:
            free = heapq.heappop(mine) if mine else _UNKNOWN
            if free.mean > start.mean or isinf(free.mean):
                waiting_for, start = "quota", free
            heapq.heappush(mine, start.plus(taken))
        end = start.plus(taken)
        # Those of other keys go ahead meanwhile; the slots have to do its work all the same.
        heapq.heappush(slots, begun.plus(taken) if waiting_for == "quota" else end)
        last = start if isfinite(start.mean) else last
        forecasts[each.job_id] = Forecast(
            waiting_for=waiting_for,
            slots=snapshot.slots,
            starts=start.spread(),
            ends=end.spread(),
            basis=basis,
            samples=samples,
        )
    pace = last.mean / len(snapshot.waiting) if snapshot.waiting and slots else 0.0
    return Outlook(forecasts, positions, pace)


def _line(rests: list[_Estimate], places: int) -> list[_Estimate]:
    """When each place is free. More rests than places are of workers that leave, or of a quota made less."""
    line = sorted(rests)[max(0, len(rests) - places) :] + [_NOW] * (places - len(rests))
    heapq.heapify(line)
    return line


def beyond(outlook: Outlook, slots: int, ahead: int, *, at_least: bool) -> Forecast:
    """Of a job so far back that its predecessors were only counted: the line goes on at its pace."""
    starts = None
    if slots and outlook.pace_seconds and not at_least:
        starts = Spread(p10=None, p50=round(ahead * outlook.pace_seconds, 1), p90=None)
    return Forecast(
        waiting_for="slot" if slots else "worker", slots=slots, position_at_least=at_least, starts=starts
    )


def _length(
    history: Mapping[Work, Sequence[float]], work: Work
) -> tuple[_Estimate, Literal["model", "target"] | None, int]:
    bases: tuple[tuple[Literal["model", "target"], Work], ...] = (("model", work), ("target", work.target))
    for basis, asked in bases:
        if seconds := history.get(asked):
            return _estimate(seconds), basis, len(seconds)
    return _UNKNOWN, None, 0


def _rest(
    history: Mapping[Work, Sequence[float]], job: Running
) -> tuple[_Estimate, bool, Literal["model", "target"] | None, int]:
    """(what is left of a running job, whether it is overdue, basis, samples)."""
    whole, basis, samples = _length(history, job.work)
    if basis is None:
        return _UNKNOWN, False, None, 0
    seconds = history[job.work if basis == "model" else job.work.target]
    left = [each - job.elapsed_seconds for each in seconds if each > job.elapsed_seconds]
    if left:
        return _estimate(left), False, basis, samples
    # Longer than any before it: those behind it must reckon with all of its time once more.
    return whole, True, basis, samples


def _estimate(seconds: Sequence[float]) -> _Estimate:
    mean = fmean(seconds)
    if len(seconds) < _LEAST_FOR_SPREAD:
        return _Estimate(mean, nan)
    # As statistics.variance, which works with fractions and is 20 times as slow.
    return _Estimate(mean, fsum((each - mean) ** 2 for each in seconds) / (len(seconds) - 1))
