"""For load balancers and Prometheus; all but the metrics without a key."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Response

from trtfarm.contract.jobs import Scope
from trtfarm_api.auth import scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.farm import FarmDep
from trtfarm_db import schema

router = APIRouter(tags=["health"], route_class=DocumentRoute)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    # A coroutine: it needs no thread, and so answers while a silent database holds them all.
    return {"status": "ok"}


@router.get("/readyz")
def readyz(farm: FarmDep) -> dict[str, str]:
    """Database and artifact store answer. Redis is not asked: the farm works without it."""
    schema.require_current(farm.database)
    farm.store.check()
    return {"status": "ready"}


@router.get(
    "/metrics",
    dependencies=[scoped(Scope.READ)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(farm: FarmDep) -> Response:
    """Answers without the database, too; to keys that were in use before it went away."""
    text = await to_thread.run_sync(farm.metrics.exposition, limiter=farm.metrics.limiter)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
