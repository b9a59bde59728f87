"""What a run does, all of it drawn from its seed before it begins: which jobs, which faults, and when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.behaviour import Behaviour


class Fault(StrEnum):
    KILL_CHILD = "kill -9 of a child"
    KILL_WORKER = "kill -9 of a worker"
    KILL_API = "kill -9 of an API and its dispatcher"
    KILL_FARM = "kill -9 of the embedded farm"
    PAUSE_WORKER = "SIGSTOP of a worker for longer than a lease"
    PAUSE_FARM = "SIGSTOP of the embedded farm for longer than a lease"
    PAUSE_CHILD = "SIGSTOP of a child"
    TERM_WORKER = "SIGTERM of a worker"
    RIVAL = "a second worker for a GPU"
    REDIS_FLUSH = "Redis: FLUSHALL"
    REDIS_RESTART = "Redis: killed, started again empty"
    REDIS_BLACK_HOLE = "Redis: black hole"
    REDIS_RESET = "Redis: connections reset"
    RINGS = "messages duplicated and shuffled"
    POSTGRES_STOP = "PostgreSQL: immediate stop"
    POSTGRES_RESET = "PostgreSQL: connections reset"
    POSTGRES_BLACK_HOLE = "PostgreSQL: black hole"
    POSTGRES_SLOW = "PostgreSQL: slow answers"
    CUT_COMMIT = "PostgreSQL: answer to a COMMIT cut off"


DISTRIBUTED = {
    Fault.KILL_CHILD: 220,
    Fault.KILL_WORKER: 110,
    Fault.KILL_API: 60,
    Fault.PAUSE_WORKER: 50,
    Fault.PAUSE_CHILD: 30,
    Fault.TERM_WORKER: 30,
    Fault.RIVAL: 15,
    Fault.REDIS_FLUSH: 140,
    Fault.REDIS_RESTART: 30,
    Fault.REDIS_BLACK_HOLE: 30,
    Fault.REDIS_RESET: 50,
    Fault.RINGS: 140,
    Fault.POSTGRES_STOP: 25,
    Fault.POSTGRES_RESET: 50,
    Fault.POSTGRES_BLACK_HOLE: 20,
    Fault.POSTGRES_SLOW: 20,
    Fault.CUT_COMMIT: 180,
}
EMBEDDED = {Fault.KILL_CHILD: 60, Fault.KILL_FARM: 20, Fault.PAUSE_FARM: 6, Fault.PAUSE_CHILD: 14}
_SECONDS: dict[Fault, tuple[float, float]] = {
    Fault.PAUSE_WORKER: (3.5, 6.0),
    Fault.PAUSE_FARM: (3.5, 6.0),
    Fault.PAUSE_CHILD: (0.2, 3.0),
    Fault.REDIS_RESTART: (0.0, 5.0),
    Fault.REDIS_BLACK_HOLE: (0.5, 4.0),
    Fault.POSTGRES_STOP: (1.0, 5.0),
    Fault.POSTGRES_BLACK_HOLE: (0.3, 3.0),
    Fault.POSTGRES_SLOW: (0.5, 3.0),
    Fault.RIVAL: (3.0, 5.0),
}
LONGEST_OUTAGE_SECONDS = 60.0  # one of PostgreSQL in every run of at least ten minutes


@dataclass(frozen=True)
class PlannedFault:
    """``victim``: draws who it hits, of those who are there then."""

    at_seconds: float
    fault: Fault
    victim: int
    seconds: float


@dataclass(frozen=True)
class PlannedJob:
    """And what its client does beside: says it again, cancels it, retries it, asks for the build anew."""

    number: int
    gpu: int
    behaviour: Behaviour
    seconds: float
    timing_cache: bool
    priority: int
    again: bool
    cancel_after: float | None
    retry: bool
    twin: bool


_BEHAVIOURS = {
    Behaviour.QUICK: 800,
    Behaviour.SLOW: 40,
    Behaviour.CRASH_ONCE: 30,
    Behaviour.POISON: 10,
    Behaviour.HANG: 5,
    Behaviour.FULL_DISK_ONCE: 20,
    Behaviour.FLOOD: 10,
    Behaviour.FORK: 15,
    Behaviour.REFUSE: 20,
    Behaviour.PARTIAL_ONCE: 20,
    Behaviour.GARBAGE_ONCE: 10,
}


def faults(seed: int, seconds: float, count: int, *, embedded: bool) -> list[PlannedFault]:
    draw = random.Random(f"{seed} faults")
    weights = EMBEDDED if embedded else DISTRIBUTED
    chosen = draw.choices(list(weights), list(weights.values()), k=count)
    planned = []
    for at, fault in zip(sorted(draw.uniform(0, seconds) for _ in chosen), chosen, strict=True):
        low, high = _SECONDS.get(fault, (0.0, 0.0))
        planned.append(PlannedFault(at, fault, draw.randrange(1 << 30), draw.uniform(low, high)))
    if not embedded and seconds >= 600:
        middle = PlannedFault(seconds / 2, Fault.POSTGRES_STOP, 0, LONGEST_OUTAGE_SECONDS)
        planned = sorted([*planned, middle], key=lambda each: each.at_seconds)
    return planned


def jobs(seed: int, count: int, gpus: int) -> Iterator[PlannedJob]:
    draw = random.Random(f"{seed} jobs")
    for number in range(count):
        behaviour = draw.choices(list(_BEHAVIOURS), list(_BEHAVIOURS.values()))[0]
        slow = behaviour is Behaviour.SLOW
        yield PlannedJob(
            number=number,
            gpu=draw.randrange(gpus),
            behaviour=behaviour,
            seconds=draw.uniform(1, 4) if slow else draw.choice([0, 0, 0, 0.1, 0.3]),
            timing_cache=draw.random() < 0.15,
            priority=draw.choice([0, 0, 0, 5, -5]),
            again=draw.random() < 0.1,
            cancel_after=draw.choice([0.0, 0.1, 0.5]) if draw.random() < 0.05 else None,
            retry=draw.random() < 0.3,
            twin=draw.random() < 0.05,
        )
