"""States of jobs and attempts, and who may follow whom."""

from __future__ import annotations

from enum import StrEnum

LOCAL = "local"
"""Who submits on a farm without keys."""


class JobKind(StrEnum):
    BUILD = "build"
    BENCHMARK = "benchmark"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LIVE = frozenset({JobState.QUEUED, JobState.RUNNING})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    # queued → succeeded, failed: by the holder of a lease that ran out, if nobody claimed the job since.
    JobState.QUEUED: TERMINAL | {JobState.RUNNING},
    # running → queued: the lease was lost, or the attempt failed for a reason that is not the job's.
    JobState.RUNNING: TERMINAL | {JobState.QUEUED},
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class Disposition(StrEnum):
    """What a submission did."""

    CREATED = "created"
    JOINED = "joined"
    REUSED = "reused"


class Outcome(StrEnum):
    """How an attempt ended. None in the database: it has not."""

    COMPLETE = "complete"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    LOST = "lost"
    RELEASED = "released"
    CANCELLED = "cancelled"


class ArtifactKind(StrEnum):
    MODEL = "model"
    EXTERNAL_DATA = "external_data"
    PLAN = "plan"
    LOG = "log"
    IO = "io"
    TIMING_CACHE = "timing_cache"
    BENCHMARK = "benchmark"
    INPUT = "input"


class Scope(StrEnum):
    """What an API key may do; each one includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(other)
