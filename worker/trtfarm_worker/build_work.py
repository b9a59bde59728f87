"""Build jobs: model → plan, on a GPU with the help of the shared timing cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.leases import BuildResult, Claim
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_worker.protocol import BuildRequest, Built, Done
from trtfarm_worker.timing_cache import SharedTimingCache
from trtfarm_worker.work import Child, Effect, OnStage, Workshop


class BuildWork:
    def __init__(self, shop: Workshop, claim: Claim, folder: Path, log_path: Path) -> None:
        self._shop, self._claim, self._folder, self._log_path = shop, claim, folder, log_path
        self._cache = SharedTimingCache.for_build(shop, claim.spec, folder)

    @contextlib.contextmanager
    def request(self, on_stage: OnStage) -> Iterator[BuildRequest]:
        on_stage("fetching model")
        with self._shop.database.transaction() as connection:
            manifest = ModelRepository(connection).manifest(self._claim.spec.model)
        paths = self._cache.fetch() if self._cache else {}
        with self._shop.models.model(manifest) as model:
            yield BuildRequest(
                spec=self._claim.spec,
                model_path=str(model),
                plan_path=str(self._folder / "plan"),
                io_path=str(self._folder / "io.json"),
                log_path=str(self._log_path),
                **paths,
            )

    def effect(self, done: Done, run: Child) -> Effect:
        assert isinstance(done, Built)  # noqa: S101 - the answer to a build request
        use = None
        if self._cache is not None and done.timing_cache is not None:
            use = self._cache.publish(done.timing_cache, self._claim.job_id, run)
        plan, io, log = self._shop.publish_all(
            self._folder / "plan", self._folder / "io.json", self._log_path
        )
        result = BuildResult(plan=plan, io=io, log=log, build_seconds=done.build_seconds, timing_cache=use)
        return lambda leases: leases.finish(self._claim, result)
