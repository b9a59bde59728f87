"""Immutable bytes under their digest, on disk or in an object store."""

from trtfarm.store.artifact_store import ArtifactStore
from trtfarm.store.blob import ListedBlob, StoredBlob
from trtfarm.store.failures import is_full
from trtfarm.store.settings import StoreSettings

__all__ = ["ArtifactStore", "ListedBlob", "StoreSettings", "StoredBlob", "is_full"]
