"""Models the farm has."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.contract.names import ModelPage, ModelReference
from trtfarm.contract.v1 import ModelView
from trtfarm.errors import ModelNotFoundError
from trtfarm_api.auth import scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.farm import FarmDep
from trtfarm_api.paging import Limit
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_db.repositories.names import NameRepository

router = APIRouter(
    prefix="/v1/models", tags=["models"], dependencies=[scoped(Scope.READ)], route_class=DocumentRoute
)
Name = Annotated[str | None, Query(max_length=200, description="Only models that have a tag of this name.")]
After = Annotated[Digest | None, Query(description="`next` of the page before.")]


@router.get("")
def list_models(farm: FarmDep, name: Name = None, cursor: After = None, limit: Limit = 50) -> ModelPage:
    """Newest first, with the names that stand for them."""
    with farm.database.transaction() as connection:
        found = NameRepository(connection).models(name=name, after=cursor, limit=limit + 1)
    more = len(found) > limit
    return ModelPage(models=tuple(found[:limit]), next=found[limit - 1].digest if more else None)


@router.get("/{model:path}")
@router.head("/{model:path}", include_in_schema=False)
def get_model(model: ModelReference, farm: FarmDep) -> ModelView:
    """What was read from the model: by digest or name. 404 also if its bytes are lost: upload it again."""
    with farm.database.transaction() as connection:
        digest = NameRepository(connection).digest(model)
        models = ModelRepository(connection)
        view, manifest = models.get(digest), models.manifest(digest)
    files = [manifest.onnx, *(file.digest for file in manifest.external_data)]
    if farm.blobs.lost(files):
        raise ModelNotFoundError(f"Files of the model {digest} are lost; upload it again.")
    return view
