"""Files on their way in: announced, sent in as many pieces as it takes, verified, accepted."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from anyio import CancelScope, CapacityLimiter, fail_after, to_thread
from pydantic import ValidationError

from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.contract.models import ModelInfo, ModelManifest
from trtfarm.contract.v1 import UploadRequest, UploadView
from trtfarm.errors import (
    ConflictError,
    DigestMismatchError,
    ExternalDataMissingError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    OffsetMismatchError,
    SizeExceededError,
    StorageFullError,
    TrtFarmError,
    UnavailableError,
    UploadLockedError,
    UploadTooLargeError,
)
from trtfarm.failpoints import reach
from trtfarm.inspection.sniff import sniff
from trtfarm_api import space
from trtfarm_api.farm import Farm
from trtfarm_api.services.admission import Admission, Need, needed
from trtfarm_api.turns import Turns
from trtfarm_db.repositories.artifacts import (
    REMOVALS,
    ArtifactRemovedError,
    ArtifactRepository,
    ModelRepository,
)
from trtfarm_db.repositories.uploads import UploadRepository

_WRITE_BYTES = 1 << 20
_SNIFF_BYTES = 4096
_STALL_SECONDS = 60.0
_LARGE_BYTES = 64 << 20  # of an ONNX file
_WAITING = 64  # uploads of one key, in each of the queues
_PUBLISHED_AT_ONCE = 4
_WRITTEN_AT_ONCE = 16


class UploadService:
    """``offset`` of an upload is the size of its staging file: nothing else to keep in step after a crash."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        processes = farm.inspection.processes
        # One large model is read at a time, so that all inspectors together keep to what one may take.
        self._large = Turns(1, waiting=_WAITING)
        self._inspecting = Turns(processes, waiting=_WAITING, abandon=True)  # closing the pool ends them
        self._publishing = Turns(_PUBLISHED_AT_ONCE, waiting=_WAITING)
        self._writing = CapacityLimiter(_WRITTEN_AT_ONCE)
        self._admission = Admission(farm)

    def create(self, request: UploadRequest, principal: str) -> tuple[UploadView, bool]:
        """Announces a file: (where to go on, whether this is a new upload).

        One the farm has already is complete at once; an unfinished one of the same caller is resumed.

        Raises:
            UploadTooLargeError, StorageFullError.
            QuotaExceededError: the caller has announced, or brought, as much as it may.
            ExternalDataMissingError: a model's external data must be uploaded before it.
            ExternalDataPathError: two files of one name.
        """
        manifest_of(request)
        if request.size_bytes > self._farm.settings.max_upload_bytes:
            raise UploadTooLargeError(
                f"{request.size_bytes} bytes are more than {self._farm.settings.max_upload_bytes}."
            )
        self._check_external_data(request)
        here = self._is_here(request)
        with self._farm.database.transaction() as connection:
            # In one transaction: from here on the open upload keeps its external data from being collected.
            self._keep(ArtifactRepository(connection), request)
            uploads = UploadRepository(connection)
            open_id = uploads.find_open(request, principal)
            if open_id is None:
                # Before it is noted: what was refused takes nobody's room.
                self._admission.check(uploads, request, principal, here=here)
            upload_id = open_id or uploads.create(request, principal)
        if here:
            with self._farm.database.transaction() as connection:
                UploadRepository(connection).complete(upload_id)
            self._path(upload_id).unlink(missing_ok=True)
            return self._view(upload_id, request, complete=True), open_id is None
        view = self._view(upload_id, request, complete=False)
        if open_id is not None:
            self._check_space(request, view.offset)
        return view, open_id is None

    def get(self, upload_id: str, principal: str) -> UploadView:
        """Raises NotFoundError."""
        request, complete = self._announced(upload_id, principal)
        return self._view(upload_id, request, complete=complete)

    async def append(
        self, upload_id: str, principal: str, offset: int, chunks: AsyncIterator[bytes]
    ) -> UploadView:
        """Takes bytes from ``offset`` on; with the last one the file is verified and accepted.

        What arrived before a connection broke is kept.

        Raises:
            OffsetMismatchError: ``details["offset"]`` tells where to go on.
            SizeExceededError, UploadLockedError, StorageFullError, TooManyUploadsError.
            DigestMismatchError, ModelError: the file is not accepted, and its bytes are dropped.
        """
        request, complete = await to_thread.run_sync(self._announced, upload_id, principal)
        if complete:
            return self._completed(upload_id, request, offset)
        with self._locked(upload_id) as descriptor:
            have = os.fstat(descriptor).st_size
            if not have:
                # Perhaps a new file: somebody else has completed the upload since, and removed its own.
                request, complete = await to_thread.run_sync(self._announced, upload_id, principal)
                if complete:
                    self._path(upload_id).unlink(missing_ok=True)
                    return self._completed(upload_id, request, offset)
            if have != offset:
                raise OffsetMismatchError(
                    f"Upload {upload_id} stands at {have}, not at {offset}.",
                    hint=f"Send on from byte {have}.",
                    offset=have,
                )
            await to_thread.run_sync(self._check_space, request, have)
            have = await self._receive(descriptor, chunks, have, request.size_bytes)
            if have < request.size_bytes:
                return self._view(upload_id, request, complete=False)
            return await self._accept(upload_id, principal, request)

    def _completed(self, upload_id: str, request: UploadRequest, offset: int) -> UploadView:
        """Raises OffsetMismatchError: there are bytes to come, and none are wanted."""
        if offset == request.size_bytes:
            return self._view(upload_id, request, complete=True)
        raise OffsetMismatchError(f"Upload {upload_id} is complete.", offset=request.size_bytes)

    def remove_accepted(self) -> None:
        """Files that are in the store since a process that was killed had no time to remove them here."""
        staged = {path.name for path in self._farm.settings.staging.glob("*")}
        with self._farm.database.transaction() as connection:
            accepted = UploadRepository(connection).completed(staged) if staged else set()
        for upload_id in accepted:
            self._path(upload_id).unlink(missing_ok=True)

    def _announced(self, upload_id: str, principal: str) -> tuple[UploadRequest, bool]:
        with self._farm.database.transaction() as connection:
            return UploadRepository(connection).get(upload_id, principal)

    async def _receive(
        self, descriptor: int, chunks: AsyncIterator[bytes], have: int, size_bytes: int
    ) -> int:
        buffer, began_at = bytearray(), have
        try:
            async for chunk in _flowing(chunks):
                if have + len(buffer) + len(chunk) > size_bytes:
                    raise SizeExceededError(f"More than the declared {size_bytes} bytes were sent.")
                buffer += chunk
                if len(buffer) >= _WRITE_BYTES:
                    data, buffer = buffer, bytearray()  # written once, even if only in part
                    await to_thread.run_sync(_write, descriptor, data, limiter=self._writing)
                    reach("upload.mid_chunk")
                    have += len(data)
        finally:
            # Also when the client is gone: what came is worth keeping.
            with CancelScope(shield=True):
                have = await to_thread.run_sync(_keep, descriptor, buffer, size_bytes, limiter=self._writing)
            self._farm.metrics.uploaded_bytes.inc(have - began_at)
        return have

    async def _accept(self, upload_id: str, principal: str, request: UploadRequest) -> UploadView:
        path = self._path(upload_id)
        try:
            info = await self._inspect(path, principal, request) if request.kind == "model" else None
            await self._publishing.run(principal, self._publish, upload_id, path, request, info)
        except (InvalidRequestError, ConflictError):
            path.unlink(missing_ok=True)
            raise  # of any other error the bytes are kept: the last, empty PATCH can be sent again
        path.unlink(missing_ok=True)
        return self._view(upload_id, request, complete=True)

    def _publish(self, upload_id: str, path: Path, request: UploadRequest, info: ModelInfo | None) -> None:
        def put() -> PublishedBlob:
            stored = self._farm.store.put_file(path, request.digest, request.size_bytes)
            return PublishedBlob(digest=request.digest, size_bytes=stored.size_bytes, etag=stored.etag)

        blob = put()
        reach("upload.after_put")
        for _ in range(REMOVALS):
            try:
                with self._farm.database.transaction() as connection:
                    artifacts = ArtifactRepository(connection)
                    artifacts.add(blob, request.kind)
                    if info is not None:
                        self._keep(artifacts, request)
                        ModelRepository(connection).add(manifest_of(request), info)
                    UploadRepository(connection).complete(upload_id)
                    reach("upload.before_finalize_commit")
                reach("upload.after_finalize_commit")
                return
            except ArtifactRemovedError:
                with self._farm.database.transaction() as connection:
                    artifacts = ArtifactRepository(connection)
                    artifacts.hold([request.digest])
                    blob = put()
                    artifacts.restored(blob)
        raise UnavailableError("What was uploaded keeps being removed from the store.")

    @staticmethod
    def _keep(artifacts: ArtifactRepository, request: UploadRequest) -> None:
        try:
            artifacts.touch({file.digest for file in request.external_data})
        except ArtifactRemovedError as error:
            lost = [file.location for file in request.external_data if file.digest in error.digests]
            raise ExternalDataMissingError(
                f"The external data {lost[0]!r} is gone from the store.",
                hint="Upload it again, then the model.",
                missing=lost,
            ) from error

    async def _inspect(self, path: Path, principal: str, request: UploadRequest) -> ModelInfo:
        """Before the file goes into the store, which then never holds what was refused."""
        sizes = {file.location: file.size_bytes for file in request.external_data}
        try:
            with path.open("rb") as file:
                sniff(file.read(_SNIFF_BYTES), request.size_bytes)
                info = await self._read(file, principal, request.size_bytes, sizes)
        except ModelError:
            if await self._publishing.run(principal, _digest, path) != request.digest:
                raise DigestMismatchError(f"The bytes that arrived are not {request.digest}.") from None
            raise
        unused = sorted(set(sizes) - set(info.external_data))
        if unused:
            raise ConflictError(f"The model does not use the external data {unused[0]!r}.")
        return info

    async def _read(
        self, file: BinaryIO, principal: str, size_bytes: int, sizes: dict[str, int]
    ) -> ModelInfo:
        turns = self._large if size_bytes > _LARGE_BYTES else None
        async with turns.turn(principal) if turns else contextlib.nullcontext():
            return await self._inspecting.run(
                principal, self._farm.inspection.inspect, file, sizes, principal
            )

    def _is_here(self, request: UploadRequest) -> bool:
        files: list[Digest] = [request.digest, *(file.digest for file in request.external_data)]
        if request.kind == "model":
            try:
                with self._farm.database.transaction() as connection:
                    ModelRepository(connection).get(manifest_of(request).digest)
            except ModelNotFoundError:
                return False
        return not self._farm.blobs.lost(files)

    def _check_external_data(self, request: UploadRequest) -> None:
        here = self._farm.blobs.sizes(file.digest for file in request.external_data)
        missing = [file for file in request.external_data if file.digest not in here]
        if missing:
            raise ExternalDataMissingError(
                f"The external data {missing[0].location!r} ({missing[0].digest}) was not uploaded.",
                hint='Upload external data first, each file with "kind": "external_data".',
                missing=[file.location for file in missing],
            )
        for file in request.external_data:
            if here[file.digest] != file.size_bytes:
                raise DigestMismatchError(
                    f"The external data {file.location!r} ({file.digest}) has {here[file.digest]} bytes, "
                    f"not {file.size_bytes}."
                )

    def _check_space(self, request: UploadRequest, offset: int) -> None:
        needs = needed(self._farm, [Need(request.size_bytes - offset, request.size_bytes)])
        space.require(needs, self._farm.settings.disk_reserve_bytes)

    @contextlib.contextmanager
    def _locked(self, upload_id: str) -> Iterator[int]:
        self._farm.settings.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self._path(upload_id), flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:
                raise UploadLockedError  # who held the lock has just ended the upload
            yield descriptor
        except BlockingIOError:
            raise UploadLockedError from None
        finally:
            os.close(descriptor)

    def _path(self, upload_id: str) -> Path:
        return self._farm.settings.staging / upload_id

    def _view(self, upload_id: str, request: UploadRequest, *, complete: bool) -> UploadView:
        try:
            offset = self._path(upload_id).stat().st_size
        except FileNotFoundError:
            offset = 0
        return UploadView(
            upload_id=upload_id,
            digest=request.digest,
            size_bytes=request.size_bytes,
            offset=request.size_bytes if complete else offset,
            complete=complete,
            model=manifest_of(request).digest if complete and request.kind == "model" else None,
        )


def manifest_of(request: UploadRequest) -> ModelManifest:
    """Raises ExternalDataPathError if two files could not both be on a disk."""
    try:
        return ModelManifest(
            onnx=request.digest, onnx_size_bytes=request.size_bytes, external_data=request.external_data
        )
    except ValidationError as error:
        cause = error.errors()[0].get("ctx", {}).get("error")
        raise cause if isinstance(cause, TrtFarmError) else error from None


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest.of_file(file)


async def _flowing(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks; a client that went away without a word must not lock its upload for ever.

    Raises:
        UnavailableError: nothing came for a while.
    """
    while True:
        try:
            with fail_after(_STALL_SECONDS):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UnavailableError(f"Nothing arrived for {_STALL_SECONDS:g} s.") from None
        yield chunk


def _keep(descriptor: int, data: bytes | bytearray, size_bytes: int) -> int:
    """Makes all bytes of the file safe, with these at its end; returns how many they are.

    A whole file is the store's to make safe.
    """
    try:
        _write(descriptor, data)
    finally:
        have = os.fstat(descriptor).st_size
        if have < size_bytes:
            os.fsync(descriptor)
            reach("upload.after_fsync")
    return have


def _write(descriptor: int, data: bytes | bytearray) -> None:
    """All of it; raises StorageFullError when the disk is full, having written what fitted."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise StorageFullError(f"The upload could not be written: {error.strerror}.") from error
