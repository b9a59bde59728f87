"""What the API says of itself. With a key, as all that tells more than that a farm is there."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from trtfarm.contract.jobs import Scope
from trtfarm_api.auth import scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.pages import docs_page

router = APIRouter(dependencies=[scoped(Scope.READ)], include_in_schema=False, route_class=DocumentRoute)


@router.get("/openapi.json")
def get_openapi(request: Request) -> dict[str, Any]:
    """For machines."""
    document: dict[str, Any] = request.app.openapi()
    return document


@router.get("/docs", response_class=HTMLResponse)
def get_docs(request: Request) -> str:
    """For people: a page to be opened, or saved and opened."""
    return docs_page(request.app.openapi())
