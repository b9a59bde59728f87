"""Names of models: what they stand for, and moving them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from trtfarm.contract.jobs import Scope
from trtfarm.contract.names import ModelName, ModelReference, NamePage, NameRequest, NameView
from trtfarm_api.auth import Submitter, scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.farm import FarmDep
from trtfarm_api.paging import Limit
from trtfarm_db.repositories.names import NameRepository

router = APIRouter(prefix="/v1/names", tags=["models"], route_class=DocumentRoute)
Name = Annotated[str | None, Query(max_length=200, description="Every tag of this name.")]
Model = Annotated[ModelReference | None, Query(description="Only names that stand for this model.")]
After = Annotated[ModelName | None, Query(description="`next` of the page before.")]


@router.get("", dependencies=[scoped(Scope.READ)])
def list_names(
    farm: FarmDep, name: Name = None, model: Model = None, cursor: After = None, limit: Limit = 50
) -> NamePage:
    """In alphabetical order."""
    with farm.database.transaction() as connection:
        names = NameRepository(connection)
        found = names.page(
            name=name,
            model=names.digest(model) if model else None,
            after=cursor,
            limit=limit + 1,
        )
    more = len(found) > limit
    return NamePage(names=tuple(found[:limit]), next=found[limit - 1].reference if more else None)


# A name may have slashes.
@router.get("/{reference:path}", dependencies=[scoped(Scope.READ)])
def get_name(reference: ModelName, farm: FarmDep) -> NameView:
    """What a name stands for, and its last 100 moves. Without a tag, `latest` is meant."""
    with farm.database.transaction() as connection:
        return NameRepository(connection).get(reference)


@router.put("/{reference:path}")
def move_name(reference: ModelName, request: NameRequest, principal: Submitter, farm: FarmDep) -> NameView:
    """Makes a name stand for a model of the farm, whatever it stood for before."""
    with farm.database.transaction() as connection:
        names = NameRepository(connection)
        names.move(reference, names.digest(request.model), principal.name)
        return names.get(reference)


@router.delete("/{reference:path}", status_code=204)
def remove_name(reference: ModelName, principal: Submitter, farm: FarmDep) -> Response:
    """Takes a name away. The model stays, and so does the name's history."""
    with farm.database.transaction() as connection:
        NameRepository(connection).remove(reference, principal.name)
    return Response(status_code=204)
