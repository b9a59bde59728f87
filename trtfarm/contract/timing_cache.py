"""Timing caches: which builds may share one."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.value import Value, canonical_json

# Settings that TensorRT's documentation names as changing the implementations that are timed.
_FLAGS = ("tf32", "refit", "strip_plan", "hardware_compatibility_level", "version_compatible", "sparsity")
_VERSION = 1


def timing_cache_key(device: Device, runtime: str, config: BuilderConfig) -> str:
    """SHA-256, 64 hexadecimal digits, of all that must be equal for timings to be worth sharing.

    Two GPUs of one product share a cache; another product, slice, runtime build or CUDA version does not.
    """
    asked = config.canonical()
    document: dict[str, Any] = {
        "version": _VERSION,
        "gpu": device.gpu,
        "compute_capability": device.compute_capability,
        "multiprocessors": device.multiprocessors,
        "runtime": runtime,
        "cuda": device.cuda,
        "flags": {name: asked[name] for name in _FLAGS if name in asked},
    }
    return Digest.of_bytes(canonical_json(document)).hex


class TimingCacheHead(Value):
    """The newest revision of a cache."""

    key: str
    revision: int
    digest: Digest
    size_bytes: int


class TimingCacheView(TimingCacheHead):
    """One revision and where it came from. ``entries``: None where TensorRT cannot tell."""

    gpu: str
    runtime: str
    entries: int | None
    job_id: str | None
    worker_id: str | None
    created_at: AwareDatetime


class TimingCacheUse(Value):
    """What a timing cache did for one build.

    Attributes:
        revision: it started from; None for a cold build.
        attached: whether TensorRT took it. One that it does not take costs time, never a build.
        entries_before, entries_after: None where TensorRT cannot tell.
        bytes_before, bytes_after: of the serialized cache.
        published: revision that came of the build; None if it learned nothing or lost a race for good.
    """

    key: str
    revision: int | None = None
    attached: bool = False
    entries_before: int | None = None
    entries_after: int | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    published: int | None = None
