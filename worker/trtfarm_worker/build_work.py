"""Build jobs: model → plan, on a GPU with the help of the shared timing cache."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.leases import Claim
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_worker.child.protocol import BuildRequest, Built, Measured
from trtfarm_worker.conversion.typed_model import TypedModels
from trtfarm_worker.finished import IO, LOG, PLAN, Finished
from trtfarm_worker.timing_cache import SharedTimingCache
from trtfarm_worker.work import Child, Watch, Workshop


class BuildWork:
    def __init__(self, shop: Workshop, claim: Claim, folder: Path) -> None:
        self._shop, self._claim, self._folder = shop, claim, folder
        self._cache = SharedTimingCache.for_build(shop, claim.spec, folder)

    @contextlib.contextmanager
    def request(self, watch: Watch) -> Iterator[BuildRequest]:
        watch.stage("fetching model")
        with self._shop.database.transaction() as connection:
            manifest = ModelRepository(connection).manifest(self._claim.spec.model)
        paths = self._cache.fetch() if self._cache else {}
        typed = TypedModels(self._shop.settings, self._folder, self._folder / LOG)
        with (
            self._shop.models.model(manifest) as model,
            typed.path(self._claim.spec, model, watch) as path,
        ):
            yield BuildRequest(
                spec=self._claim.spec,
                model_path=str(path),
                plan_path=str(self._folder / PLAN),
                io_path=str(self._folder / IO),
                log_path=str(self._folder / LOG),
                **paths,
            )

    def finished(self, done: Built | Measured) -> Finished:
        assert isinstance(done, Built)  # noqa: S101 - the answer to a build request
        use = self._cache.use(done.timing_cache) if self._cache and done.timing_cache else None
        return Finished(claim=self._claim, done=done, timing_cache=use, at=time.time())

    def share(self, finished: Finished, run: Child) -> Finished:
        if self._cache is None or finished.timing_cache is None:
            return finished
        use = self._cache.publish(finished.timing_cache, self._claim.job_id, run)
        return finished.model_copy(update={"timing_cache": use})
