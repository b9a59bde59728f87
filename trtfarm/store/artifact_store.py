"""The artifact store: put, stat, fetch, stream, quarantine. Verified when written and when read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from trtfarm.contract.digest import Digest
from trtfarm.errors import BlobCorruptError, BlobMissingError
from trtfarm.store.blob import ListedBlob, StoredBlob, described, key_of, listed, quarantine_key_of
from trtfarm.store.disk import DiskFolder
from trtfarm.store.download import replace_file
from trtfarm.store.failures import translated
from trtfarm.store.opening import open_store
from trtfarm.store.settings import StoreSettings
from trtfarm.store.transfer import AHEAD, PART_BYTES, checked, part_bytes_for, pieces, stream_range, verified

if TYPE_CHECKING:
    from obstore import Bytes
    from obstore.store import ObjectStore

COPY_LIMIT_BYTES = 5 << 30  # of one copy inside S3
STREAM_THREADS = 32  # of all streams together


class ArtifactStore:
    """Content-addressed blobs under ``sha256/<2 hex>/<62 hex>``.

    Threads may share one. A process that has used one must not fork a child that uses any: obstore's
    threads do not survive a fork, and the child hangs; start it with exec. All but ``stream`` block. Every
    method may raise ``UnavailableError`` or ``ConfigurationError``, which say nothing about the blob.
    """

    def __init__(self, store: ObjectStore, settings: StoreSettings) -> None:
        from obstore.store import LocalStore

        self._store = store
        self._settings = settings
        self._disk = (
            DiskFolder(Path(store.prefix)) if isinstance(store, LocalStore) and store.prefix else None
        )
        # Measured: on disk 2 MiB is fastest; over a network a request costs more than a copy.
        self._piece_bytes = 2 << 20 if self._disk else PART_BYTES
        self._readers = ThreadPoolExecutor(STREAM_THREADS, "trtfarm-store")  # starts them as needed

    @classmethod
    def open(cls, settings: StoreSettings) -> Self:
        """Makes the folder of a ``file://`` store; asks no server: see ``check``.

        Raises:
            ConfigurationError: an unknown option, or a folder that cannot be made.

        """
        return cls(open_store(settings), settings)

    def check(self) -> None:
        """One cheap request. Without a bucket or folder every blob would only look missing.

        Raises:
            ConfigurationError: there is no such bucket or folder, or access is refused.
            UnavailableError: the store does not answer.

        """
        with translated():
            if self._disk:
                self._disk.root.stat()
            else:
                next(iter(self._store.list("sha256", chunk_size=1)), None)

    def put_file(self, path: Path, digest: Digest, size_bytes: int) -> StoredBlob:
        """Publishes a file, atomically. A blob that exists is written anew, which repairs it.

        Raises:
            DigestMismatchError: the file has other bytes; nothing becomes visible.
            StorageFullError: nothing becomes visible.
            OSError: the file cannot be read.

        """
        with path.open("rb") as file:
            return self._put(file, digest, size_bytes)

    def put_bytes(self, data: bytes) -> tuple[Digest, StoredBlob]:
        """Raises StorageFullError."""
        digest = Digest.of_bytes(data)
        return digest, self._put(BytesIO(data), digest, len(data))

    def _put(self, file: BinaryIO, digest: Digest, size_bytes: int) -> StoredBlob:
        part_bytes = part_bytes_for(size_bytes)
        parts = checked(file, digest, size_bytes, part_bytes)
        key = self._disk.staging_key() if self._disk else key_of(digest)
        with translated():
            if size_bytes <= PART_BYTES:
                self._store.put(key, b"".join(parts), use_multipart=False)
            else:
                self._store.put(key, parts, use_multipart=True, chunk_size=part_bytes, max_concurrency=AHEAD)
            if self._disk:
                self._disk.publish(key, key_of(digest))
        # Removed again already, as garbage: the database tells its writer.
        return self.stat(digest) or StoredBlob(digest, size_bytes, etag="")

    def stat(self, digest: Digest) -> StoredBlob | None:
        with suppress(BlobMissingError):
            return self._found(digest)
        return None

    def _found(self, digest: Digest) -> StoredBlob:
        with translated(digest):
            return described(digest, self._store.head(key_of(digest)))

    def _buffers(self, blob: StoredBlob) -> Iterator[Bytes]:
        digest = blob.digest
        return verified(
            digest, pieces(self._store, key_of(digest), digest, blob.size_bytes, self._piece_bytes)
        )

    def fetch(self, digest: Digest, destination: Path, size_bytes: int | None = None) -> None:
        """Copies a blob to a file of mode 0644, verified before it gets its name.

        Raises:
            BlobMissingError: the store has no such blob.
            BlobCorruptError: the store has other bytes, or not ``size_bytes`` of them.
            StorageFullError: no space at the destination.
            OSError: the destination's folder is missing or not writable.

        """
        blob = self._found(digest)
        if size_bytes not in {None, blob.size_bytes}:
            raise BlobCorruptError(
                f"The artifact {digest} has {blob.size_bytes} bytes in the store, not {size_bytes}.",
                digest=digest,
            )
        replace_file(destination, self._buffers(blob))

    def read(self, digest: Digest) -> bytes:
        """A small blob, verified. Raises BlobMissingError, BlobCorruptError."""
        return b"".join(self._buffers(self._found(digest)))

    def verify(self, digest: Digest, read: Callable[[int], object] = bool) -> bool:
        """Whether the stored bytes are the right ones. Reads all of them, and calls ``read`` with the number
        of bytes in each piece; what that raises ends it.

        Raises:
            BlobMissingError: the store has no such blob.
        """
        try:
            for buffer in self._buffers(self._found(digest)):
                read(len(buffer))
        except BlobCorruptError:
            return False
        return True

    def blobs(self) -> Iterator[ListedBlob]:
        """All that the store holds, in no order; what is put or deleted meanwhile may be missing."""
        with translated():
            batches = iter(self._store.list("sha256"))
            while batch := next(batches, None):
                yield from filter(None, map(listed, batch))

    @property
    def folder(self) -> Path | None:
        """Of a ``file://`` store."""
        return self._disk.root if self._disk else None

    async def stream(
        self, digest: Digest, start: int = 0, end: int | None = None, chunk_bytes: int | None = None
    ) -> AsyncIterator[memoryview]:
        """Bytes ``start`` to ``end`` (exclusive, cut at the blob's end), not verified: a part has no digest.

        Holds up to three chunks; send them with a Content-Length, or the server copies each of them.

        Raises:
            BlobMissingError: before the first chunk; later only if the blob is removed meanwhile.

        """
        loop = asyncio.get_running_loop()
        size_bytes = (await loop.run_in_executor(self._readers, self._found, digest)).size_bytes

        def read(first: int, last: int) -> Bytes:
            with translated(digest):
                return self._store.get_range(key_of(digest), start=first, end=last)

        stop = size_bytes if end is None else min(end, size_bytes)
        chunk = chunk_bytes or self._piece_bytes
        async with aclosing(stream_range(read, self._readers, start, stop, chunk)) as chunks:
            async for view in chunks:
                yield view

    def delete(self, digest: Digest) -> None:
        """Deleting what is not there is no error."""
        with suppress(BlobMissingError), translated(digest):
            self._store.delete(key_of(digest))

    def quarantine(self, digest: Digest) -> str:
        """Moves a blob to ``quarantine/``, where nothing serves it. Returns where to look at it.

        Raises:
            BlobMissingError: the store has no such blob.

        """
        from obstore import open_writer

        blob = self._found(digest)
        key, aside = key_of(digest), quarantine_key_of(digest)
        with translated(digest):
            if self._disk or blob.size_bytes <= COPY_LIMIT_BYTES:
                self._store.rename(key, aside)
            else:
                part_bytes = part_bytes_for(blob.size_bytes)
                with open_writer(self._store, aside, buffer_size=part_bytes, max_concurrency=AHEAD) as writer:
                    for piece in pieces(self._store, key, digest, blob.size_bytes, self._piece_bytes):
                        writer.write(piece)
                self._store.delete(key)
        return f"{self._settings.url}/{aside}"

    def sweep(self, older_than_seconds: float) -> int:
        """Removes what writers that were killed left behind; returns the bytes freed.

        On disk only: S3 and its kin do that by a lifecycle rule for incomplete multipart uploads.
        """
        return self._disk.sweep(older_than_seconds) if self._disk else 0

    def url(self, digest: Digest) -> str:
        """For people: where the blob is."""
        return f"{self._settings.url}/{key_of(digest)}"
