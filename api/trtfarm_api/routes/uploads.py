"""Uploads: resumable, digest-checked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from trtfarm.contract.v1 import UploadRequest, UploadView
from trtfarm_api.auth import Submitter
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.services import UploadsDep

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=DocumentRoute)


@router.post("", status_code=201)
def create_upload(
    request: UploadRequest, principal: Submitter, uploads: UploadsDep, response: Response
) -> UploadView:
    """Announces a file. 200 instead of 201: it is here already, or can be resumed from `offset`."""
    view, new = uploads.create(request, principal.name)
    if not new or view.complete:
        response.status_code = 200
    response.headers["Location"] = f"/v1/uploads/{view.upload_id}"
    return _with_offset(response, view)


@router.get("/{upload_id}")
@router.head("/{upload_id}", include_in_schema=False)
def get_upload(upload_id: str, principal: Submitter, uploads: UploadsDep, response: Response) -> UploadView:
    """Where the upload stands; HEAD tells it in `Upload-Offset`."""
    return _with_offset(response, uploads.get(upload_id, principal.name))


@router.patch("/{upload_id}", openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}}})
async def append_to_upload(
    upload_id: str,
    request: Request,
    principal: Submitter,
    uploads: UploadsDep,
    response: Response,
    upload_offset: Annotated[int, Header(ge=0)] = 0,
) -> UploadView:
    """Takes raw bytes from `Upload-Offset` on. The answer to the last ones says whether they are accepted."""
    view = await uploads.append(upload_id, principal.name, upload_offset, request.stream())
    return _with_offset(response, view)


def _with_offset(response: Response, view: UploadView) -> UploadView:
    response.headers["Upload-Offset"] = str(view.offset)
    return view
