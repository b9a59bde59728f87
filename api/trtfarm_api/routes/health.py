"""For load balancers and Prometheus; all but the metrics without a key."""

from __future__ import annotations

import logging

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response

from trtfarm.contract.jobs import Scope
from trtfarm.errors import TrtFarmError, UnavailableError
from trtfarm_api.auth import PRINCIPAL, scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.farm import Farm, FarmDep
from trtfarm_db import schema

router = APIRouter(tags=["health"], route_class=DocumentRoute)
_CHECKS = CapacityLimiter(4)  # anybody may ask, and must not hold the threads of all routes
_log = logging.getLogger(__name__)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    # A coroutine: it needs no thread, and so answers while a silent database holds them all.
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(farm: FarmDep, request: Request) -> dict[str, str]:
    """Database and artifact store answer. Redis is not asked: the farm works without it."""
    try:
        await to_thread.run_sync(_check, farm, limiter=_CHECKS)
    except TrtFarmError as error:
        if request.scope[PRINCIPAL] is not None:
            raise
        _log.warning("not ready: %s", error)
        raise UnavailableError("The farm is not ready; its log tells why.") from None
    return {"status": "ready"}


def _check(farm: Farm) -> None:
    schema.require_current(farm.database)
    farm.store.check()


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
