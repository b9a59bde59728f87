"""The shared timing cache of a build: start from the newest revision, publish what was learned.

Publishing compares and swaps on the revision. Whoever comes second combines with the newer head and tries
again, so no committed entry is ever lost. A cache is a help, never a need: its failures cost time only.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Self

from trtfarm.contract.device import Device
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import ENTERPRISE, Runtime
from trtfarm.contract.timing_cache import TimingCacheHead, TimingCacheUse, timing_cache_key
from trtfarm.errors import TrtFarmError
from trtfarm.failpoints import reach
from trtfarm_db.repositories.artifacts import ArtifactRemovedError
from trtfarm_db.repositories.timing_caches import TimingCacheRepository
from trtfarm_worker.child.protocol import CacheReport, Combined, CombineRequest
from trtfarm_worker.work import Child, Workshop

_log = logging.getLogger(__name__)
_TRIES = 8


class SharedTimingCache:
    def __init__(self, shop: Workshop, device: Device, spec: BuildSpec, folder: Path) -> None:
        self._shop, self._device, self._spec, self._folder = shop, device, spec, folder
        self.key = timing_cache_key(device, spec.target.runtime, spec.config)
        self._head: TimingCacheHead | None = None
        self._learned = folder / "timing.learned"

    @classmethod
    def for_build(cls, shop: Workshop, spec: BuildSpec, folder: Path) -> Self | None:
        """None where there is nothing to share: ahead-of-time builds time nothing."""
        flavour = Runtime.parse(spec.target.runtime).flavour
        if shop.device is None or flavour != ENTERPRISE or spec.config.disable_timing_cache:
            return None
        return cls(shop, shop.device, spec, folder)

    def fetch(self) -> dict[str, str]:
        """Paths for the build request; cold if there is no usable revision."""
        paths = {"timing_cache_out": str(self._learned)}
        try:
            self._head = self._newest()
            if self._head is not None:
                start = self._folder / "timing.start"
                self._shop.store.fetch(self._head.digest, start, self._head.size_bytes)
                paths["timing_cache_in"] = str(start)
        except TrtFarmError as error:
            _log.warning("building without the timing cache %s: %s", self.key[:12], error)
            self._head = None
        return paths

    def use(self, report: CacheReport) -> TimingCacheUse:
        """What the build had of the cache; nothing is published yet."""
        revision = self._head.revision if self._head else None
        return TimingCacheUse(key=self.key, revision=revision, **report.model_dump())

    def publish(self, use: TimingCacheUse, job_id: str, run: Child) -> TimingCacheUse:
        try:
            return use.model_copy(update={"published": self._publish(use, job_id, run)})
        except TrtFarmError as error:
            _log.warning("the timing cache %s was not published: %s", self.key[:12], error)
            return use

    def _publish(self, use: TimingCacheUse, job_id: str, run: Child) -> int | None:
        mine, base = self._learned, self._head
        if not self._learned_something(use):
            return None
        for attempt in range(_TRIES):
            if attempt:
                newer = self._newest()
                if newer is None:
                    return None
                combined = self._combined(newer, mine, attempt, run)
                if combined is None:
                    return None
                mine, base = combined, newer
            blob = self._shop.delivery.publish_file(mine)
            reach("timing_cache.after_put")
            if base is not None and blob.digest == base.digest:
                return base.revision
            try:
                with self._shop.database.transaction() as connection:
                    revision = TimingCacheRepository(connection).publish(
                        key=self.key,
                        after=base.revision if base else 0,
                        blob=blob,
                        device=self._device,
                        runtime=self._spec.target.runtime,
                        entries=use.entries_after,
                        job_id=job_id,
                        worker_id=self._shop.worker_id,
                    )
            except ArtifactRemovedError as error:
                self._shop.delivery.restore(error, partial(self._shop.delivery.publish_named, mine))
                continue
            if revision is not None:
                reach("timing_cache.after_commit")
                return revision
        _log.warning("the timing cache %s is too busy; this build's timings are dropped", self.key[:12])
        return None

    def _learned_something(self, use: TimingCacheUse) -> bool:
        if use.entries_after is not None and use.attached:
            return use.entries_after > (use.entries_before or 0)
        return not use.attached or use.bytes_after > use.bytes_before

    def _combined(self, newer: TimingCacheHead, mine: Path, attempt: int, run: Child) -> Path | None:
        base = self._folder / f"timing.head.{attempt}"
        self._shop.store.fetch(newer.digest, base, newer.size_bytes)
        destination = self._folder / f"timing.combined.{attempt}"
        answer = run(
            CombineRequest(
                base=str(base),
                addition=str(mine),
                destination=str(destination),
                log_path=str(self._folder / "combine.log"),  # the job's own log is finished
            )
        )
        if isinstance(answer, Combined) and answer.ok:
            return destination
        _log.warning("the timing cache %s does not combine; this build's timings are dropped", self.key[:12])
        return None

    def _newest(self) -> TimingCacheHead | None:
        with self._shop.database.transaction() as connection:
            return TimingCacheRepository(connection).head(self.key)
