"""Models on a worker's disk: fetched once, verified, kept for the next target.

    <scratch>/models/<model>/model/              what was uploaded, under the names that the graph has
    <scratch>/models/<model>/typed/<key>/        a copy that was converted, for all targets
    <scratch>/models/.<model>.lock, .partial     the farm's own

Uploads name files below ``model`` alone. TensorRT looks for external data beside the ONNX file, so that one
lies there too, under a name that no location may have (``check_location``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trtfarm.contract.models import ModelManifest
from trtfarm.errors import ExternalDataPathError
from trtfarm.store import ArtifactStore

UPLOADED, TYPED = "model", "typed"
MODEL_FILE = "m:model.onnx"  # a location that begins with a drive is refused, in whatever spelling
_LOCK_SECONDS = 0.05


@dataclass(frozen=True)
class CachedModel:
    """The files of one model.

    Attributes:
        onnx: beside it, its external data.
        typed: folder for converted copies, which last as long as the model; made on demand.
        size_bytes: of all that was uploaded.
    """

    onnx: Path
    typed: Path
    size_bytes: int


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
    def model(self, manifest: ModelManifest) -> Iterator[CachedModel]:
        """The model's files, for as long as the block runs.

        Raises:
            BlobMissingError, BlobCorruptError: the store does not have it (any more).
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = self._folder / manifest.digest.hex
        with self._lock_file(folder) as lock:
            # Changing a lock's kind gives it up for a moment, so look again each time; and never wait for the
            # exclusive one: whoever has just fetched the model may hold the shared one for a whole build.
            while not self._shared(lock, folder):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(_LOCK_SECONDS)
                    continue
                if not (folder / UPLOADED).is_dir():
                    self._evict(manifest.size_bytes)
                    self._fetch(manifest, folder)
            os.utime(folder)
            yield CachedModel(folder / UPLOADED / MODEL_FILE, folder / TYPED, manifest.size_bytes)

    @staticmethod
    def _shared(lock: int, folder: Path) -> bool:
        """Waits for a fetch under way; whether the model is there, and stays."""
        fcntl.flock(lock, fcntl.LOCK_SH)
        return (folder / UPLOADED).is_dir()

    def _fetch(self, manifest: ModelManifest, folder: Path) -> None:
        partial = _partial(folder)
        shutil.rmtree(partial, ignore_errors=True)
        uploaded = partial / UPLOADED
        uploaded.mkdir(parents=True)
        self._store.fetch(manifest.onnx, uploaded / MODEL_FILE, manifest.onnx_size_bytes)
        for file in manifest.external_data:
            destination = uploaded / file.location  # checked when the model was accepted
            destination.parent.mkdir(parents=True, exist_ok=True)
            if destination.exists():  # on a disk that takes more names for one than we know of
                raise ExternalDataPathError(f"External data {file.location!r} would replace another file.")
            self._store.fetch(file.digest, destination, file.size_bytes)
        shutil.rmtree(folder, ignore_errors=True)  # of another layout
        partial.rename(folder)

    def _evict(self, incoming_bytes: int) -> None:
        """Makes room: first what killed workers left, then the least recently used. What is in use stays."""
        for partial in self._folder.glob(".*.partial"):
            self._remove(self._folder / partial.name[1:].removesuffix(".partial"))
        models = [folder for folder in self._folder.iterdir() if not folder.name.startswith(".")]
        used = {folder: _used_at(folder) for folder in models}
        sizes = {folder: _size(folder) for folder in models}
        total = sum(sizes.values()) + incoming_bytes
        for folder in sorted(models, key=lambda folder: used[folder]):
            if total <= self._limit_bytes:
                return
            if self._remove(folder):
                total -= sizes[folder]

    def make_room(self, wanted_bytes: int) -> None:
        """Removes models that nobody uses, the least recently used first, until so many bytes are free."""
        if not self._folder.is_dir():
            return
        models = [folder for folder in self._folder.iterdir() if folder.is_dir()]
        for folder in sorted(models, key=_used_at):
            if wanted_bytes <= 0:
                return
            size_bytes = _size(folder)
            if not folder.name.startswith(".") and self._remove(folder):
                wanted_bytes -= size_bytes

    def _remove(self, folder: Path) -> bool:
        """False while another holds the model's lock."""
        with self._lock_file(folder) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            # Under another name: a folder that is half removed must not look like a model.
            partial = _partial(folder)
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                folder.rename(partial)
            shutil.rmtree(partial, ignore_errors=True)
            return True

    @contextlib.contextmanager
    def _lock_file(self, folder: Path) -> Iterator[int]:
        descriptor = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another worker has just evicted it
        return 0


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total
