"""Is a blob fit to be handed out?"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.errors import BlobCorruptError, BlobMissingError, UnavailableError
from trtfarm.store import ArtifactStore
from trtfarm_api.metrics import Metrics
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ArtifactRepository

_STATS_AT_ONCE = 16  # a store far away answers many questions in the time of one
_VERIFIED_AT_ONCE = 8
_log = logging.getLogger(__name__)


class BlobGoneError(BlobMissingError):
    """The bytes of a plan that was built are lost; submit the build again."""


class Blobs:
    """Checks blobs against what was verified when they were published.

    A blob whose etag is the verified one has not been written since. Any other is read and hashed before
    it is served again; if it is wrong, it goes into quarantine and counts as missing.
    """

    def __init__(self, database: Database, store: ArtifactStore, metrics: Metrics) -> None:
        self._metrics = metrics
        self._database = database
        self._store = store
        self._verifying = BoundedSemaphore(_VERIFIED_AT_ONCE)

    def require(self, digest: Digest) -> PublishedBlob:
        """
        Raises:
            BlobMissingError, BlobCorruptError.
            UnavailableError: it would have to be read, and enough others are being read.
        """
        with self._database.transaction() as connection:
            known = ArtifactRepository(connection).find(digest)
        if known is None:
            raise BlobMissingError(f"The farm has no artifact {digest}.")
        found = self._store.stat(digest)
        if found is None:
            self.take_out(known)
            raise BlobMissingError(f"The artifact {digest} is gone from the store.")
        if found.etag == known.etag and found.size_bytes == known.size_bytes:
            return known
        if found.size_bytes == known.size_bytes and self._verify(digest):
            with self._database.transaction() as connection:
                ArtifactRepository(connection).verified(digest, found.etag)
            return PublishedBlob(digest=digest, size_bytes=found.size_bytes, etag=found.etag)
        self.take_out(known)
        raise BlobCorruptError(f"The artifact {digest} was damaged and has been taken out of service.")

    def _verify(self, digest: Digest) -> bool:
        """Whether the bytes are right. Reading them may take minutes, in a thread that all routes share."""
        if not self._verifying.acquire(blocking=False):
            raise UnavailableError(
                f"The artifact {digest} must be read again before it is served, and others are being read.",
                hint="Try again in a while.",
            )
        try:
            return self._store.verify(digest)
        finally:
            self._verifying.release()

    def usable(self, digest: Digest) -> bool:
        try:
            self.require(digest)
        except (BlobMissingError, BlobCorruptError):
            return False
        return True

    def lost(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those that are not usable. See ``sizes``."""
        wanted = set(digests)
        return wanted - self.sizes(wanted).keys()

    def sizes(self, digests: Iterable[Digest]) -> dict[Digest, int]:
        """Those that are usable, with their bytes: one question to the database, one look into the store for
        each. Requests may name thousands.
        """
        wanted = list(dict.fromkeys(digests))
        if not wanted:
            return {}
        with self._database.transaction() as connection:
            known = ArtifactRepository(connection).find_all(wanted)
        if not known:
            return {}

        def untouched(blob: PublishedBlob) -> bool:
            found = self._store.stat(blob.digest)
            return found is not None and (found.etag, found.size_bytes) == (blob.etag, blob.size_bytes)

        with ThreadPoolExecutor(min(len(known), _STATS_AT_ONCE), thread_name_prefix="stat") as pool:
            good = dict(zip(known, pool.map(untouched, known.values()), strict=True))
        return {digest: known[digest].size_bytes for digest in known if good[digest] or self.usable(digest)}

    def take_out(self, known: PublishedBlob) -> bool:
        """No longer hands out what is missing or corrupt; the bytes, if there are any, go into quarantine.

        Nothing is done, and False returned, if somebody has published it anew.
        """
        digest = known.digest
        with self._database.transaction() as connection:
            artifacts = ArtifactRepository(connection)
            if not artifacts.locked(known):
                return False
            reason = "missing"
            with contextlib.suppress(BlobMissingError):
                self._store.quarantine(digest)
                reason = "corrupt"
            artifacts.remove(digest)
        self._metrics.lost.labels(reason).inc()
        _log.error("artifact %s is %s; it is out of service", digest, reason)
        return True
