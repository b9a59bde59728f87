"""Which plan fits a machine."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter

from trtfarm.contract.jobs import Scope
from trtfarm.contract.resolve import ResolveRequest, ResolveView
from trtfarm_api.auth import Reader
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.services import ResolveDep

router = APIRouter(prefix="/v1/plans", tags=["plans"], route_class=DocumentRoute)


@router.post("/resolve")
async def resolve_plan(request: ResolveRequest, principal: Reader, resolver: ResolveDep) -> ResolveView:
    """The best plan of a model for a machine, why, and why no other. `build` needs scope `submit`."""
    if request.build:
        principal.require(Scope.SUBMIT)
    # A coroutine: FastAPI would go to a thread once more, to check the answer of a plain function.
    return await to_thread.run_sync(resolver.resolve, request, principal.name)
