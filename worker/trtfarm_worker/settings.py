"""Settings of a worker: configs/worker.toml, TRTFARM_* variables, defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trtfarm.contract.leases import RetryPolicy
from trtfarm.sandbox import Mode


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class WorkerSettings(BaseModel):
    """How a worker works.

    Attributes:
        runtime: TensorRT flavour whose bindings the child loads.
        gpu: UUID or index of the GPU to work on, with ``tensorrt``; needed where there are several.
        slots: builds at a time; a worker on a GPU has one.
        scratch: folder for models under way and plans being built; made on demand.
        model_cache_bytes: models, and their copies in fp16, kept between jobs in ``scratch``; the least
            recently used go first.
        deaf_seconds: a worker that is idle ends when rings wait in Redis for so long and it hears none; its
            supervisor starts it again. 0: never.
        scratch_reserve_bytes: nothing is claimed while the scratch folder's disk has less space.
        breaker_crashes: different builds in a row that brought the child down, before a slot tries one of its
            own, and pauses if that fails.
        breaker_seconds: how long; each further failure doubles it, up to half an hour.
        lease_seconds: silence after which a job goes to another worker.
        heartbeat_seconds: how often a running job's lease is renewed and a wish to cancel is seen.
        idle_poll_seconds: how often an idle worker looks by itself, should no ring arrive.
        spool_bytes: finished work that may wait in ``scratch``; above that, nothing more is claimed.
        spool_seconds: how long finished work may wait in ``scratch`` for the database or the store.
        no_progress_seconds: how long a child may do nothing (no message, no line in its log, hardly any CPU
            time) before it is killed.
        log_bytes: a job's log that grows larger loses its middle.
        drain_seconds: how long running builds may go on after SIGTERM.
        child_start_seconds: how long the child may take to load TensorRT.
        child_module: what the child runs: the farm's own; tests have another.
        child_max_builds, child_max_rss_bytes: when a warm child on a GPU is replaced by a fresh one.
        child_memory_bytes: address space of a process that builds without a GPU; by default, all memory.
        child_file_bytes: the largest file that a child may write.
        child_variables: names of environment variables that a child is given beside those it needs.
        sandbox: ``auto`` puts in force what the kernel offers, ``required`` does not start on a kernel that
            lacks Landlock or seccomp, ``off`` confines nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt-rtx"
    gpu: str | None = None
    slots: int = Field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)), ge=1, le=64)
    scratch: Path = Path("/var/lib/trtfarm/scratch")
    model_cache_bytes: int = Field(default=20 * 2**30, ge=0)
    deaf_seconds: float = Field(default=60, ge=0)
    scratch_reserve_bytes: int = Field(default=2**30, ge=0)
    breaker_crashes: int = Field(default=3, ge=1)
    breaker_seconds: float = Field(default=30, ge=0)
    lease_seconds: float = Field(default=60, gt=0)
    heartbeat_seconds: float = Field(default=5, gt=0)
    idle_poll_seconds: float = Field(default=15, gt=0)
    spool_bytes: int = Field(default=20 * 2**30, ge=0)
    spool_seconds: float = Field(default=7 * 24 * 3600, ge=0)
    no_progress_seconds: float = Field(default=900, gt=0)
    log_bytes: int = Field(default=128 * 2**20, ge=2**16)
    drain_seconds: float = Field(default=300, ge=0)
    child_start_seconds: float = Field(default=120, gt=0)
    child_module: str = "trtfarm_worker.tensorrt.child"
    child_max_builds: int = Field(default=200, ge=1)
    child_max_rss_bytes: int = Field(default=8 * 2**30, ge=0)
    child_memory_bytes: int = Field(default_factory=_machine_memory, ge=2**30)
    child_file_bytes: int = Field(default=64 * 2**30, ge=2**20)
    child_variables: tuple[str, ...] = ()
    sandbox: Mode = Mode.AUTO
    retry: RetryPolicy = RetryPolicy()
