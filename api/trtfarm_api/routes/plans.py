"""Plans, and the bytes of artifacts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.contract.names import ModelReference
from trtfarm.contract.v1 import PlanPage, PlanView
from trtfarm.errors import BlobMissingError
from trtfarm_api.auth import scoped
from trtfarm_api.blobs import BlobGoneError
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.downloads import artifact_response
from trtfarm_api.farm import FarmDep
from trtfarm_api.paging import Cursor, Limit, next_cursor
from trtfarm_api.services.fitting import fitting
from trtfarm_db.repositories.artifacts import PlanRepository
from trtfarm_db.repositories.names import NameRepository

router = APIRouter(prefix="/v1", tags=["plans"], dependencies=[scoped(Scope.READ)], route_class=DocumentRoute)
_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
Text = Annotated[str | None, Query(max_length=80)]


@router.get("/plans")
def list_plans(
    farm: FarmDep,
    model: ModelReference | None = None,
    gpu: Text = None,
    runtime: Text = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> PlanPage:
    """Newest first. With a `gpu`, plans that it can use: of the product, and of its capability."""
    with farm.database.transaction() as connection:
        digest = model and NameRepository(connection).digest(model)
        plans = PlanRepository(connection).page(
            model=digest,
            gpus=fitting(farm.catalogue, gpu),
            runtime=runtime,
            before=cursor,
            limit=limit + 1,
        )
    return PlanPage(plans=tuple(plans[:limit]), next=next_cursor(plans, limit))


@router.get("/plans/{digest}")
def get_plan(digest: Digest, farm: FarmDep) -> PlanView:
    """What a plan was built from and for."""
    with farm.database.transaction() as connection:
        return PlanRepository(connection).get(digest)


@router.get("/plans/{digest}/content", response_class=Response, responses=_BYTES)
@router.head("/plans/{digest}/content", include_in_schema=False)
def get_plan_content(digest: Digest, request: Request, farm: FarmDep) -> Response:
    """The plan's bytes, with Range, ETag and Repr-Digest. 410 if they are lost: submit the build again."""
    with farm.database.transaction() as connection:
        plan = PlanRepository(connection).get(digest)
    name = f"{plan.model.short}.{plan.target.gpu}.{plan.target.runtime}.plan"
    try:
        return artifact_response(farm, request, digest, media_type="application/octet-stream", filename=name)
    except BlobMissingError as error:
        raise BlobGoneError from error


@router.get("/artifacts/{digest}", response_class=Response, responses=_BYTES)
@router.head("/artifacts/{digest}", include_in_schema=False)
def get_artifact(digest: Digest, request: Request, farm: FarmDep) -> Response:
    """Any artifact's bytes: I/O descriptions, logs, models."""
    return artifact_response(farm, request, digest, media_type="application/octet-stream")
