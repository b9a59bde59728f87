"""Models the farm has."""

from __future__ import annotations

from fastapi import APIRouter

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.contract.v1 import ModelView
from trtfarm.errors import ModelNotFoundError
from trtfarm_api.auth import scoped
from trtfarm_api.farm import FarmDep
from trtfarm_db.repositories.artifacts import ModelRepository

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[scoped(Scope.READ)])


@router.get("/{digest}")
@router.head("/{digest}", include_in_schema=False)
def get_model(digest: Digest, farm: FarmDep) -> ModelView:
    """What was read from the model. 404 also if its bytes are lost: upload it again."""
    with farm.database.transaction() as connection:
        models = ModelRepository(connection)
        view, manifest = models.get(digest), models.manifest(digest)
    files = [manifest.onnx, *(file.digest for file in manifest.external_data)]
    if not all(farm.blobs.usable(each) for each in files):
        raise ModelNotFoundError(f"Files of the model {digest} are lost; upload it again.")
    return view
