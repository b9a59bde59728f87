"""Large files both ways, as flows: in pieces, resumable, verified."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import httpx

from trtfarm import errors
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.names import ModelName, model_reference
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.contract.v1 import PlanView, SubmissionView, TimingCacheImport, UploadView
from trtfarm.files import PathLike, owned, publish, same_file, target_of
from trtfarm.sdk import asked, requests
from trtfarm.sdk.answers import problem, unreachable
from trtfarm.sdk.calls import OnBytes, Plan, has_model, submit, view
from trtfarm.sdk.calls import plan as view_of
from trtfarm.sdk.flow import Flow, chunk, opened, pause, work

if TYPE_CHECKING:
    from onnx import ModelProto

_PIECE_BYTES = 64 * 2**20
_READ_BYTES = 1 << 20
_TRIES = 8
_BACKOFF_SECONDS = 0.05
# The last piece is answered when the file is verified and accepted.
_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
Open = Callable[[], BinaryIO]
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
    found = yield from view(TimingCacheView, "POST", "/v1/timing-caches", json=body)
    asked.same("timing cache", digest, found.digest)
    return found


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
                _expected(announcement, upload)
                meter.at(upload.offset)
                if not upload.complete:
                    upload = yield from _send(file, upload, meter)
                patience.failures = 0
            except (errors.OffsetMismatchError, errors.UploadLockedError, errors.UnavailableError) as error:
                # Nobody answers; or a piece arrived whose answer did not; or its connection still lingers.
                yield from pause(patience.failed(upload.offset if upload else 0, error))
    meter.at(upload.offset)


def _expected(announcement: dict[str, Any], upload: UploadView) -> None:
    for name in ("digest", "size_bytes"):
        asked.same(f"an upload with {name}", announcement[name], getattr(upload, name))
    if not 0 <= upload.offset <= upload.size_bytes:
        raise errors.AnswerMismatchError(
            f"An upload of {upload.size_bytes} bytes cannot stand at {upload.offset}."
        )


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
        LocalFileError: ``destination`` is no regular file.
    """
    digest = plan.digest if isinstance(plan, PlanView) else plan
    target = target_of(destination)
    target.parent.mkdir(parents=True, exist_ok=True)
    usual = target.with_name(f".{target.name}.{digest.short}.part")
    meter, patience = _Meter(on_bytes), _Patience()
    with contextlib.ExitStack() as stack:
        # Not waited for: while another process is at it, a file of one's own.
        partial, file = yield from work(lambda: stack.enter_context(owned(usual, wait=False)))
        try:
            while True:
                try:
                    yield from _receive(plan, file, partial.parent, meter)
                    break
                except (httpx.TransportError, errors.UnavailableError) as error:
                    if isinstance(error, httpx.ConnectError) and not patience.failures:
                        raise unreachable(error) from error
                    yield from pause(patience.failed(_size(file), error))
            yield from work(lambda: _publish(partial, file, digest, target))
        finally:
            # Nothing to go on from, or nobody would; but not what somebody else has begun since.
            useless = not _size(file) or partial != usual
            if useless and same_file(partial, file):
                partial.unlink()
    return Path(destination)


def _publish(partial: Path, file: BinaryIO, digest: Digest, target: Path) -> None:
    file.seek(0)
    got = Digest.of_file(file)
    if got != digest:
        file.truncate(0)
        raise errors.BlobCorruptError(
            f"Other bytes than {digest} arrived ({got}).", hint="The file was dropped; pull it again."
        )
    publish(partial, file, target)


def _receive(plan: Plan, file: BinaryIO, folder: Path, meter: _Meter) -> Flow[None]:
    digest = plan.digest if isinstance(plan, PlanView) else plan
    have = _size(file)
    # As they are: bytes that somebody packs on the way could not be counted.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    stream = yield from opened("GET", f"/v1/plans/{digest}/content", headers=headers)
    response = stream.response
    if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        return  # it was whole already; its digest decides
    if not response.is_success:
        raise problem(response)
    resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
    have = have if resumed else 0
    size = yield from _announced_size(plan, response, have)
    _require_space(folder, size - have)
    meter.at(have)
    file.truncate(have)
    file.seek(have)
    while (data := (yield from chunk(stream))) is not None:
        have += len(data)
        if have > size:
            file.truncate(0)
            raise errors.AnswerMismatchError(
                f"Plan {digest} has {size} bytes, and more came.", hint="The file was dropped."
            )
        yield from work(functools.partial(file.write, data))
        meter.at(have)


def _announced_size(plan: Plan, response: httpx.Response, have: int) -> Flow[int]:
    """Bytes of the whole plan: those that its view tells, and that the answer announces if it does."""
    length = response.headers.get("Content-Length", "")
    announced = have + int(length) if length.isdecimal() else None
    if isinstance(plan, PlanView):
        asked.same(f"plan {plan.digest} of bytes", plan.size_bytes, announced or plan.size_bytes)
        return plan.size_bytes
    if announced is not None:
        return announced
    return (yield from view_of(plan)).size_bytes


def _require_space(folder: Path, needs_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needs_bytes > free:
        raise errors.LocalFileError(
            f"{folder} has {free} bytes left, and {needs_bytes} are to come.",
            hint="Make room, or check TRTFARM_URL.",
        )


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
