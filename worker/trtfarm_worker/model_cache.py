"""Models on a worker's disk: fetched once, verified, kept for the next target."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.models import ModelManifest
from trtfarm.store import ArtifactStore

MODEL_FILE = "model.onnx.trtfarm"  # no external data will ever be called that


class ModelCache:
    """A folder with one folder a model, its external data laid out as the graph names it.

    Slots and workers may share it. Each model has a lock file: held exclusively to fetch or evict,
    shared while in use. The kernel drops the locks of a process that dies.
    """

    def __init__(self, folder: Path, store: ArtifactStore, limit_bytes: int) -> None:
        self._folder = folder
        self._store = store
        self._limit_bytes = limit_bytes

    @contextlib.contextmanager
    def model(self, manifest: ModelManifest) -> Iterator[Path]:
        """The path of the ONNX file, for as long as the block runs.

        Raises:
            BlobMissingError, BlobCorruptError: the store does not have it (any more).
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = self._folder / manifest.digest.hex
        with self._lock_file(folder) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                self._evict(manifest.size_bytes)
                self._fetch(manifest, folder)
            os.utime(folder)
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield folder / MODEL_FILE

    def _fetch(self, manifest: ModelManifest, folder: Path) -> None:
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        self._store.fetch(manifest.onnx, partial / MODEL_FILE, manifest.onnx_size_bytes)
        for file in manifest.external_data:
            destination = partial / file.location  # checked when the model was accepted
            destination.parent.mkdir(parents=True, exist_ok=True)
            self._store.fetch(file.digest, destination, file.size_bytes)
        partial.rename(folder)

    def _evict(self, incoming_bytes: int) -> None:
        """Makes room, least recently used first; what is in use stays."""
        models = sorted(
            (folder for folder in self._folder.iterdir() if not folder.name.startswith(".")),
            key=lambda folder: folder.stat().st_mtime,
        )
        sizes = {folder: _size(folder) for folder in models}
        total = sum(sizes.values()) + incoming_bytes
        for folder in models:
            if total <= self._limit_bytes:
                return
            with contextlib.suppress(BlockingIOError), self._lock_file(folder) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]

    @contextlib.contextmanager
    def _lock_file(self, folder: Path) -> Iterator[int]:
        descriptor = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
