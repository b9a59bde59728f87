"""Immutable bytes under their digest, on disk or in an object store."""

from trtfarm.store.artifact_store import ArtifactStore
from trtfarm.store.blob import StoredBlob
from trtfarm.store.settings import StoreSettings

__all__ = ["ArtifactStore", "StoreSettings", "StoredBlob"]
