"""Benchmarks and timing caches."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.contract.names import ModelReference
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.contract.v1 import BenchmarkPage, TimingCacheImport, TimingCacheList
from trtfarm.errors import NotFoundError
from trtfarm_api.auth import scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.downloads import artifact_response
from trtfarm_api.farm import FarmDep
from trtfarm_api.paging import Cursor, Limit, next_cursor
from trtfarm_api.services.fitting import measured_on
from trtfarm_api.services.timing_caches import import_timing_cache
from trtfarm_db.repositories.benchmarks import BenchmarkRepository
from trtfarm_db.repositories.names import NameRepository
from trtfarm_db.repositories.timing_caches import TimingCacheRepository

router = APIRouter(prefix="/v1", tags=["gpu"], route_class=DocumentRoute)
Text = Annotated[str | None, Query(max_length=80)]
Key = Annotated[str, Path(pattern="^[0-9a-f]{6,64}$", description="First digits do.")]


@router.get("/benchmarks", dependencies=[scoped(Scope.READ)])
def list_benchmarks(
    farm: FarmDep,
    plan: Digest | None = None,
    model: ModelReference | None = None,
    gpu: Text = None,
    runtime: Text = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> BenchmarkPage:
    """Newest first. `gpu`: a product, or any of a capability."""
    with farm.database.transaction() as connection:
        digest = model and NameRepository(connection).digest(model)
        found = BenchmarkRepository(connection).page(
            plan=plan,
            model=digest,
            gpus=measured_on(farm.catalogue, gpu),
            runtime=runtime,
            before=cursor,
            limit=limit + 1,
        )
    return BenchmarkPage(benchmarks=tuple(found[:limit]), next=next_cursor(found, limit))


@router.get("/timing-caches", dependencies=[scoped(Scope.READ)])
def list_timing_caches(farm: FarmDep) -> TimingCacheList:
    """The newest revision of each."""
    with farm.database.transaction() as connection:
        return TimingCacheList(timing_caches=tuple(TimingCacheRepository(connection).heads()))


@router.post("/timing-caches", status_code=201, dependencies=[scoped(Scope.ADMIN)])
def import_cache(request: TimingCacheImport, farm: FarmDep) -> TimingCacheView:
    """Publishes an uploaded file (kind `timing_cache`) as the newest revision for a GPU and runtime."""
    return import_timing_cache(farm, request)


@router.get("/timing-caches/{key}", dependencies=[scoped(Scope.READ)])
def get_timing_cache(key: Key, farm: FarmDep) -> TimingCacheList:
    """Every revision of one, newest first."""
    with farm.database.transaction() as connection:
        return TimingCacheList(timing_caches=tuple(TimingCacheRepository(connection).history(key)))


@router.get("/timing-caches/{key}/content", dependencies=[scoped(Scope.READ)])
def get_timing_cache_content(
    key: Key, request: Request, farm: FarmDep, revision: Annotated[int | None, Query(ge=1)] = None
) -> Response:
    """A revision's bytes, by default the newest's: a file for trtexec's --timingCacheFile."""
    with farm.database.transaction() as connection:
        history = TimingCacheRepository(connection).history(key)
    chosen = next((each for each in history if revision in {None, each.revision}), None)
    if chosen is None:
        raise NotFoundError(f"The timing cache {key} has no revision {revision}.")
    return artifact_response(
        farm,
        request,
        chosen.digest,
        media_type="application/octet-stream",
        filename=f"{chosen.gpu}.{chosen.runtime}.r{chosen.revision}.cache",
    )


@router.post("/timing-caches/{key}/rollback", dependencies=[scoped(Scope.ADMIN)])
def roll_back_timing_cache(key: Key, farm: FarmDep, revision: Annotated[int, Query(ge=1)]) -> TimingCacheView:
    """Publishes an older revision as the newest; nothing is deleted."""
    with farm.database.transaction() as connection:
        return TimingCacheRepository(connection).rollback(key, revision)
