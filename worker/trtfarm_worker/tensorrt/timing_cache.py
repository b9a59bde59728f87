"""Timing caches inside the child: attach, read back, combine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trtfarm_worker.child.protocol import CacheReport


class TimingCache:
    """The cache of one build. What cannot be attached is replaced by an empty one: it costs time only."""

    def __init__(self, config: Any, source: Path | None) -> None:
        self._config = config
        data = source.read_bytes() if source else b""
        self._empty_bytes = len(_serialized(config.create_timing_cache(b"")))
        self._cache = config.create_timing_cache(data)
        before = len(_serialized(self._cache)) if self._cache is not None else 0
        # A cache it cannot read becomes an empty one, without an error.
        self._attached = bool(data) and before > self._empty_bytes
        taken = self._cache is not None and config.set_timing_cache(self._cache, False)
        if not taken:
            self._attached = False
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, False)
        self._before = (_entries(self._cache), len(data))

    def save(self, destination: Path) -> CacheReport:
        """After the build: everything known now."""
        cache = self._config.get_timing_cache()
        data = _serialized(cache)
        destination.write_bytes(data)
        entries, size = self._before
        return CacheReport(
            attached=self._attached,
            entries_before=entries,
            entries_after=_entries(cache),
            bytes_before=size,
            bytes_after=len(data),
        )


def combine(builder: Any, base: Path, addition: Path, destination: Path) -> bool:
    """Writes ``base`` with the entries of ``addition`` that it lacks; False if TensorRT refuses.

    TensorRT 8.6 also says no when the timings were taken and only the code generator's part, which it can
    do without, was not (seen on H200 without cuBLAS). What has grown has taken the timings.
    """
    config = builder.create_builder_config()
    ours = config.create_timing_cache(base.read_bytes())
    theirs = config.create_timing_cache(addition.read_bytes())
    if ours is None or theirs is None:
        return False
    agreed = ours.combine(theirs, False)
    combined = _serialized(ours)
    if not agreed and len(combined) <= base.stat().st_size:
        return False
    destination.write_bytes(combined)
    return True


def _serialized(cache: Any) -> bytes:
    return bytes(memoryview(cache.serialize())) if cache is not None else b""


def _entries(cache: Any) -> int | None:
    return len(cache.queryKeys()) if hasattr(cache, "queryKeys") else None
