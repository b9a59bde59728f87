"""For load balancers and Prometheus; the only routes without a key, but for the metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from trtfarm import __version__
from trtfarm.contract.jobs import Scope
from trtfarm_api.auth import scoped
from trtfarm_api.farm import FarmDep
from trtfarm_db import schema

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok", "version": __version__}


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
def metrics(farm: FarmDep) -> Response:
    return Response(farm.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
