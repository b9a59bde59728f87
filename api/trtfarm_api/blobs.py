"""Is a blob fit to be handed out?"""

from __future__ import annotations

import logging

from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.errors import BlobCorruptError, BlobMissingError
from trtfarm.store import ArtifactStore
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ArtifactRepository

_log = logging.getLogger(__name__)


class BlobGoneError(BlobMissingError):
    """The bytes of a plan that was built are lost; submit the build again."""


class Blobs:
    """Checks blobs against what was verified when they were published.

    A blob whose etag is the verified one has not been written since. Any other is read and hashed before
    it is served again; if it is wrong, it goes into quarantine and counts as missing.
    """

    def __init__(self, database: Database, store: ArtifactStore) -> None:
        self._database = database
        self._store = store

    def require(self, digest: Digest) -> PublishedBlob:
        """Raises BlobMissingError or BlobCorruptError."""
        with self._database.transaction() as connection:
            known = ArtifactRepository(connection).find(digest)
        if known is None:
            raise BlobMissingError(f"The farm has no artifact {digest}.")
        found = self._store.stat(digest)
        if found is None:
            self._forget(digest)
            raise BlobMissingError(f"The artifact {digest} is gone from the store.")
        if found.etag == known.etag and found.size_bytes == known.size_bytes:
            return known
        if found.size_bytes == known.size_bytes and self._store.verify(digest):
            with self._database.transaction() as connection:
                ArtifactRepository(connection).verified(digest, found.etag)
            return PublishedBlob(digest=digest, size_bytes=found.size_bytes, etag=found.etag)
        _log.error("artifact %s is corrupt; it goes into quarantine", digest)
        self._store.quarantine(digest)
        self._forget(digest)
        raise BlobCorruptError(f"The artifact {digest} was damaged and has been taken out of service.")

    def usable(self, digest: Digest) -> bool:
        try:
            self.require(digest)
        except (BlobMissingError, BlobCorruptError):
            return False
        return True

    def _forget(self, digest: Digest) -> None:
        with self._database.transaction() as connection:
            ArtifactRepository(connection).remove(digest)
