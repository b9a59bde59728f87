"""Settings of a worker: configs/worker.toml, TRTFARM_* variables, defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trtfarm.contract.leases import RetryPolicy


class WorkerSettings(BaseModel):
    """How a worker works.

    Attributes:
        runtime: TensorRT flavour whose bindings the child loads.
        gpu: UUID or index of the GPU to work on, with ``tensorrt``; needed where there are several.
        slots: builds at a time; a worker on a GPU has one.
        scratch: folder for models under way and plans being built; made on demand.
        model_cache_bytes: models kept between jobs in ``scratch``; the least recently used go first.
        lease_seconds: silence after which a job goes to another worker.
        heartbeat_seconds: how often a running job's lease is renewed and a wish to cancel is seen.
        idle_poll_seconds: how often an idle worker looks by itself, should no ring arrive.
        partition_seconds: how long finished work waits for a database that does not answer.
        drain_seconds: how long running builds may go on after SIGTERM.
        child_start_seconds: how long the child may take to load TensorRT.
        child_max_builds, child_max_rss_bytes: when a warm child is replaced by a fresh one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt-rtx"
    gpu: str | None = None
    slots: int = Field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)), ge=1, le=64)
    scratch: Path = Path("/var/tmp/trtfarm")  # noqa: S108 - a default for people to change
    model_cache_bytes: int = Field(default=20 * 2**30, ge=0)
    lease_seconds: float = Field(default=60, gt=0)
    heartbeat_seconds: float = Field(default=5, gt=0)
    idle_poll_seconds: float = Field(default=15, gt=0)
    partition_seconds: float = Field(default=1800, ge=0)
    drain_seconds: float = Field(default=300, ge=0)
    child_start_seconds: float = Field(default=120, gt=0)
    child_max_builds: int = Field(default=200, ge=1)
    child_max_rss_bytes: int = Field(default=8 * 2**30, ge=0)
    retry: RetryPolicy = RetryPolicy()
