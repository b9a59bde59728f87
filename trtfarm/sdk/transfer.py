"""Large files both ways, as flows: in pieces, resumable, verified."""

from __future__ import annotations

import fcntl
import functools
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import httpx

from trtfarm import errors
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.names import ModelName, model_reference
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.contract.v1 import PlanView, SubmissionView, TimingCacheImport, UploadView
from trtfarm.sdk import requests
from trtfarm.sdk.answers import problem, unreachable
from trtfarm.sdk.calls import OnBytes, Plan, has_model, submit, view
from trtfarm.sdk.flow import Flow, chunk, opened, pause, work
from trtfarm.sdk.placing import same_file, sync_folder

if TYPE_CHECKING:
    from onnx import ModelProto

_PIECE_BYTES = 64 * 2**20
_READ_BYTES = 1 << 20
_TRIES = 8
_BACKOFF_SECONDS = 0.05
# The last piece is answered when the file is verified and accepted.
_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
Open = Callable[[], BinaryIO]
PathLike = str | os.PathLike[str]
Model: TypeAlias = "PathLike | bytes | ModelProto"


def build(model: Model, gpu: str, options: requests.BuildOptions) -> Flow[SubmissionView]:
    """Uploads a model unless the farm has it, and submits the build."""
    reference = _reference(model) or (yield from upload(model, None))
    return (yield from submit(requests.build(reference, gpu, options)))


def _reference(model: Model) -> Digest | ModelName | None:
    """``name:tag``, unless there is a file of that name."""
    if isinstance(model, Digest | ModelName):
        return model
    named = isinstance(model, str) and ":" in model and not Path(model).exists()
    return model_reference(model) if isinstance(model, str) and named else None


def upload(model: Model, on_bytes: OnBytes | None) -> Flow[Digest]:
    """A model as a path, as bytes, or as it was made with the onnx package.

    Raises:
        ModelError: it is none that a farm takes.
    """
    if isinstance(model, str | os.PathLike):
        from trtfarm.inspection.manifest import manifest_of

        path = Path(model)
        manifest = yield from work(lambda: manifest_of(path))
        return (yield from upload_model(path, manifest, on_bytes))
    data = model if isinstance(model, bytes) else (yield from work(lambda: _serialized(model)))
    manifest = ModelManifest(onnx=Digest.of_bytes(data), onnx_size_bytes=len(data))
    if not (yield from has_model(manifest.digest)):
        yield from _upload(lambda: io.BytesIO(data), _announced(manifest), on_bytes)
    return manifest.digest


def _serialized(model: ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # protobuf has several for a message over 2 GiB
        raise errors.OnnxTooLargeError(
            hint="Give the path of a file with external data: onnx.save_model(…, save_as_external_data=True)."
        ) from error


def upload_model(path: Path, manifest: ModelManifest, on_bytes: OnBytes | None) -> Flow[Digest]:
    """Sends what the farm does not have yet, external data first; resumes what was begun."""
    from trtfarm.inspection.manifest import external_path

    if (yield from has_model(manifest.digest)):
        return manifest.digest
    for file in manifest.external_data:
        body = {"digest": file.digest, "size_bytes": file.size_bytes, "kind": "external_data"}
        beside = external_path(path, file.location)
        yield from _upload(_opener(beside), body, on_bytes)
    yield from _upload(_opener(path), _announced(manifest), on_bytes)
    return manifest.digest


def _announced(manifest: ModelManifest) -> dict[str, Any]:
    listed = [file.model_dump(mode="json") for file in manifest.external_data]
    return {"digest": manifest.onnx, "size_bytes": manifest.onnx_size_bytes, "external_data": listed}


def _opener(path: Path) -> Open:
    return lambda: path.open("rb")


def upload_file(path: Path, kind: str, on_bytes: OnBytes | None) -> Flow[Digest]:
    """One that is no model."""

    def read() -> Digest:
        with path.open("rb") as file:
            return Digest.of_file(file)

    digest = yield from work(read)
    announcement = {"digest": digest, "size_bytes": path.stat().st_size, "kind": kind}
    yield from _upload(_opener(path), announcement, on_bytes)
    return digest


def upload_input(path: Path, on_bytes: OnBytes | None) -> Flow[Digest]:
    size_bytes = yield from work(lambda: path.stat().st_size)
    if not size_bytes:
        raise errors.InvalidRequestError(f"{path} is empty.")
    return (yield from upload_file(path, "input", on_bytes))


def import_timing_cache(path: Path, gpu: str, runtime: str | None) -> Flow[TimingCacheView]:
    digest = yield from upload_file(path, "timing_cache", None)
    body = TimingCacheImport(digest=digest, gpu=gpu, runtime=runtime).model_dump(mode="json")
    return (yield from view(TimingCacheView, "POST", "/v1/timing-caches", json=body))


def _upload(open_: Open, announcement: dict[str, Any], on_bytes: OnBytes | None) -> Flow[None]:
    upload: UploadView | None = None
    meter, patience = _Meter(on_bytes), _Patience()
    with open_() as file:
        while upload is None or not upload.complete:
            try:
                if upload is None:
                    upload = yield from view(UploadView, "POST", "/v1/uploads", json=announcement)
                elif patience.failures:
                    upload = yield from view(UploadView, "GET", f"/v1/uploads/{upload.upload_id}")
                meter.at(upload.offset)
                if not upload.complete:
                    upload = yield from _send(file, upload, meter)
                patience.failures = 0
            except (errors.OffsetMismatchError, errors.UploadLockedError, errors.UnavailableError) as error:
                # Nobody answers; or a piece arrived whose answer did not; or its connection still lingers.
                yield from pause(patience.failed(upload.offset if upload else 0, error))
    meter.at(upload.offset)


def _send(file: BinaryIO, upload: UploadView, meter: _Meter) -> Flow[UploadView]:
    """One piece. It is read as it is sent, so that the call cannot be repeated."""
    left = min(_PIECE_BYTES, upload.size_bytes - upload.offset)
    headers = {
        "Upload-Offset": str(upload.offset),
        "Content-Length": str(left),
        "Content-Type": "application/octet-stream",
    }
    file.seek(upload.offset)
    piece = _piece(file, left, meter)
    url = f"/v1/uploads/{upload.upload_id}"
    return view(UploadView, "PATCH", url, content=piece, headers=headers, timeout=_TIMEOUT, tries=1)


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

    def __init__(self, on_bytes: OnBytes | None) -> None:
        self._on_bytes = on_bytes
        self._position = 0

    def at(self, position: int) -> None:
        if self._on_bytes is not None and position != self._position:
            self._on_bytes(position - self._position)
            self._position = position


class _Patience:
    """Waits longer after each failure, and gives up when ``_TRIES`` in a row got nothing further."""

    def __init__(self) -> None:
        self.failures = 0
        self._reached = -1

    def failed(self, reached: int, error: Exception) -> float:
        """The seconds to wait. Raises FarmUnreachableError."""
        self.failures = self.failures + 1 if reached <= self._reached else 1
        self._reached = max(reached, self._reached)
        if self.failures == _TRIES:
            raise errors.FarmUnreachableError(
                f"The transfer does not get on: {error}", hint="Run it again to resume."
            ) from error
        return _BACKOFF_SECONDS * 2.0**self.failures


def pull(plan: Plan, destination: PathLike, on_bytes: OnBytes | None) -> Flow[Path]:
    """Downloads a plan; what has arrived is kept beside the destination until it is whole.

    Raises:
        BlobCorruptError: other bytes arrived.
    """
    digest = plan.digest if isinstance(plan, PlanView) else plan
    destination = Path(destination)
    url = f"/v1/plans/{digest}/content"
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial, lock = yield from work(lambda: _partial(destination, digest))
    meter, patience = _Meter(on_bytes), _Patience()
    try:
        while True:
            try:
                yield from _receive(url, partial, meter)
                break
            except (httpx.TransportError, errors.UnavailableError) as error:
                if isinstance(error, httpx.ConnectError) and not patience.failures:
                    raise unreachable(error) from error
                yield from pause(patience.failed(_size(partial), error))
        yield from work(lambda: _publish(partial, digest, destination))
    finally:
        # Nothing to go on from, or nobody would; but not what somebody else has begun since.
        useless = not _size(partial) or partial != _usual(destination, digest)
        if useless and same_file(partial, lock):
            partial.unlink()
        lock.close()
    return destination


def _usual(destination: Path, digest: Digest) -> Path:
    return destination.with_name(f".{destination.name}.{digest.short}.part")


def _partial(destination: Path, digest: Digest) -> tuple[Path, BinaryIO]:
    """Where to download to, which nobody else writes to as long as the file is open.

    What an earlier try left is taken up; while another process is at it, a file of one's own.
    """
    usual = _usual(destination, digest)
    own = usual.with_name(f"{usual.stem}.{token_hex(4)}.part")
    for path in (usual, own):
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        if same_file(path, file):
            return path, file
        file.close()  # whoever was at it has just given it its name
    raise AssertionError  # nobody else knows one's own file


def _publish(partial: Path, digest: Digest, destination: Path) -> None:
    with partial.open("rb") as file:
        got = Digest.of_file(file)
        os.fsync(file.fileno())
    if got != digest:
        partial.unlink()
        raise errors.BlobCorruptError(
            f"Other bytes than {digest} arrived ({got}).", hint="The file was dropped; pull it again."
        )
    partial.replace(destination)
    sync_folder(destination.parent)


def _receive(url: str, partial: Path, meter: _Meter) -> Flow[None]:
    have = _size(partial)
    headers = {"Range": f"bytes={have}-"} if have else {}
    stream = yield from opened("GET", url, headers=headers)
    response = stream.response
    if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        return  # it was whole already; its digest decides
    if not response.is_success:
        raise problem(response)
    resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
    have = have if resumed else 0
    meter.at(have)
    # Unbuffered: what waited for more would be lost with the line.
    with partial.open("ab" if resumed else "wb", buffering=0) as file:
        while (data := (yield from chunk(stream))) is not None:
            yield from work(functools.partial(file.write, data))
            have += len(data)
            meter.at(have)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
