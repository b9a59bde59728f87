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
from trtfarm.sdk.answers import parsed, problem

_PIECE_BYTES = 64 * 2**20
_READ_BYTES = 1 << 20
_TRIES = 8
_BACKOFF_SECONDS = 0.05
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


def upload_file(request: Request, path: Path, kind: str) -> Digest:
    """One file by itself."""
    with path.open("rb") as file:
        digest = Digest.of_file(file)
    body = {"digest": digest, "size_bytes": path.stat().st_size, "kind": kind}
    _upload(request, path, body, lambda _: None)
    return digest


def _upload(request: Request, path: Path, announcement: dict[str, Any], on_bytes: OnBytes) -> None:
    view: UploadView | None = None
    meter, patience = _Meter(on_bytes), _Patience()
    with path.open("rb") as file:
        while view is None or not view.complete:
            try:
                if view is None:
                    view = parsed(UploadView, request("POST", "/v1/uploads", json=announcement))
                elif patience.failures:
                    view = parsed(UploadView, request("GET", f"/v1/uploads/{view.upload_id}"))
                meter.at(view.offset)
                if not view.complete:
                    view = _send(request, file, view, meter)
                patience.failures = 0
            except (errors.OffsetMismatchError, errors.UploadLockedError, errors.UnavailableError) as error:
                # Nobody answers; or a piece arrived whose answer did not; or its connection still lingers.
                patience.failed(view.offset if view else 0, error)
    meter.at(view.offset)


def _send(request: Request, file: BinaryIO, view: UploadView, meter: _Meter) -> UploadView:
    """One piece. It is read as it is sent, so that ``request`` cannot repeat it."""
    left = min(_PIECE_BYTES, view.size_bytes - view.offset)
    headers = {
        "Upload-Offset": str(view.offset),
        "Content-Length": str(left),
        "Content-Type": "application/octet-stream",
    }
    file.seek(view.offset)
    piece = _piece(file, left, meter)
    url = f"/v1/uploads/{view.upload_id}"
    return parsed(
        UploadView, request("PATCH", url, content=piece, headers=headers, timeout=_TIMEOUT, tries=1)
    )


def _piece(file: BinaryIO, left: int, meter: _Meter) -> Iterator[bytes]:
    while left:
        chunk = file.read(min(_READ_BYTES, left))
        if not chunk:
            raise errors.ModelError("The model's file became shorter while it was sent.")
        left -= len(chunk)
        meter.at(file.tell())
        yield chunk


class _Meter:
    """Reports every byte once: those that must be sent again are taken back first."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._position = 0

    def at(self, position: int) -> None:
        if position != self._position:
            self._on_bytes(position - self._position)
            self._position = position


class _Patience:
    """Waits longer after each failure, and gives up when ``_TRIES`` in a row got nothing further."""

    def __init__(self) -> None:
        self.failures = 0
        self._reached = -1

    def failed(self, reached: int, error: Exception) -> None:
        """Raises FarmUnreachableError."""
        self.failures = self.failures + 1 if reached <= self._reached else 1
        self._reached = max(reached, self._reached)
        if self.failures == _TRIES:
            raise errors.FarmUnreachableError(
                f"The transfer does not get on: {error}", hint="Run it again to resume."
            ) from error
        time.sleep(_BACKOFF_SECONDS * 2**self.failures)


def download(http: httpx.Client, url: str, digest: Digest, destination: Path, on_bytes: OnBytes) -> None:
    """See ``FarmClient.pull``. What has arrived is kept beside the destination until it is whole."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.{digest.short}.part")
    meter, patience = _Meter(on_bytes), _Patience()
    while True:
        try:
            _receive(http, url, partial, meter)
            break
        except (httpx.TransportError, errors.UnavailableError) as error:
            if isinstance(error, httpx.ConnectError) and not patience.failures:
                raise errors.FarmUnreachableError(
                    f"The farm does not answer: {error}", hint="Check TRTFARM_URL and that the farm is up."
                ) from error
            patience.failed(_size(partial), error)
    with partial.open("rb") as file:
        got = Digest.of_file(file)
        os.fsync(file.fileno())
    if got != digest:
        partial.unlink()
        raise errors.BlobCorruptError(
            f"Other bytes than {digest} arrived ({got}).", hint="The file was dropped; pull it again."
        )
    partial.replace(destination)


def _receive(http: httpx.Client, url: str, partial: Path, meter: _Meter) -> None:
    have = _size(partial)
    headers = {"Range": f"bytes={have}-"} if have else {}
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # it was whole already; its digest decides
        if not response.is_success:
            response.read()
            raise problem(response)
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        have = have if resumed else 0
        meter.at(have)
        with partial.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw():  # as it comes: what waited for more would be lost with the line
                file.write(chunk)
                have += len(chunk)
                meter.at(have)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
