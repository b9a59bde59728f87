"""Large files both ways: in pieces, resumable, verified."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from trtfarm import errors
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.v1 import UploadView

_PIECE_BYTES = 64 * 2**20
_READ_BYTES = 1 << 20
_TRIES = 8
# The last piece is answered when the file is verified and accepted.
_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
Request = Callable[..., httpx.Response]
OnBytes = Callable[[int], None]


def upload_model(request: Request, path: Path, manifest: ModelManifest, on_bytes: OnBytes) -> None:
    """External data first, as the farm asks for it; ``on_bytes`` gets the bytes of each step."""
    from trtfarm.inspection.manifest import external_path

    for file in manifest.external_data:
        body = {"digest": file.digest, "size_bytes": file.size_bytes, "kind": "external_data"}
        _upload(request, external_path(path, file.location), body, on_bytes)
    listed = [file.model_dump(mode="json") for file in manifest.external_data]
    body = {"digest": manifest.onnx, "size_bytes": manifest.onnx_size_bytes, "external_data": listed}
    _upload(request, path, body, on_bytes)


def _upload(request: Request, path: Path, announcement: dict[str, Any], on_bytes: OnBytes) -> None:
    view = UploadView.model_validate(request("POST", "/v1/uploads", json=announcement).json())
    on_bytes(view.offset)
    with path.open("rb") as file:
        for attempt in range(_TRIES):
            try:
                _send(request, file, view, on_bytes)
                return
            except (errors.OffsetMismatchError, errors.UploadLockedError):
                # A piece arrived whose answer did not; or its connection still lingers.
                time.sleep(0.1 * 2**attempt)
                view = UploadView.model_validate(request("GET", f"/v1/uploads/{view.upload_id}").json())
    raise errors.FarmUnreachableError(
        f"The upload of {path} does not get on.", hint="Run it again to resume."
    )


def _send(request: Request, file: BinaryIO, view: UploadView, on_bytes: OnBytes) -> None:
    while not view.complete:
        file.seek(view.offset)
        left = min(_PIECE_BYTES, view.size_bytes - view.offset)
        response = request(
            "PATCH",
            f"/v1/uploads/{view.upload_id}",
            content=_piece(file, left, on_bytes),
            headers={
                "Upload-Offset": str(view.offset),
                "Content-Length": str(left),
                "Content-Type": "application/octet-stream",
            },
            timeout=_TIMEOUT,
        )
        view = UploadView.model_validate(response.json())


def _piece(file: BinaryIO, left: int, on_bytes: OnBytes) -> Iterator[bytes]:
    while left:
        chunk = file.read(min(_READ_BYTES, left))
        if not chunk:
            raise errors.ModelError("The model's file became shorter while it was sent.")
        left -= len(chunk)
        on_bytes(len(chunk))
        yield chunk


def download(http: httpx.Client, url: str, digest: Digest, destination: Path, on_bytes: OnBytes) -> None:
    """See ``FarmClient.pull``. What has arrived is kept beside the destination until it is whole."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.{digest.short}.part")
    for attempt in range(_TRIES):
        try:
            _receive(http, url, partial, on_bytes)
            break
        except httpx.TransportError as error:
            if attempt == _TRIES - 1:
                raise errors.FarmUnreachableError(
                    f"The download broke off: {error}", hint="Run it again to resume."
                ) from error
            time.sleep(0.1 * 2**attempt)
    with partial.open("rb") as file:
        got = Digest.of_file(file)
        os.fsync(file.fileno())
    if got != digest:
        partial.unlink()
        raise errors.BlobCorruptError(
            f"Other bytes than {digest} arrived ({got}).", hint="The file was dropped; pull it again."
        )
    partial.replace(destination)


def _receive(http: httpx.Client, url: str, partial: Path, on_bytes: OnBytes) -> None:
    from trtfarm.sdk.client import problem

    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # it was whole already; its digest decides
        if response.is_error:
            response.read()
            raise problem(response)
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        with partial.open("ab" if resumed else "wb") as file:
            if resumed:
                on_bytes(have)
            for chunk in response.iter_raw(_READ_BYTES):
                file.write(chunk)
                on_bytes(len(chunk))
