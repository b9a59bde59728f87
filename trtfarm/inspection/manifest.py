"""The files of a model on a client's disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from trtfarm.contract.digest import CHUNK_BYTES, Digest
from trtfarm.contract.models import ExternalFile, ModelManifest
from trtfarm.errors import ExternalDataMissingError, ExternalDataPathError
from trtfarm.inspection.external import check_references
from trtfarm.inspection.inspect import examine

Progress = Callable[[int], None]
"""Called with the number of bytes hashed since the last call."""


def manifest_of(path: Path, progress: Progress | None = None) -> ModelManifest:
    """Inspects the model, finds its external data beside it and hashes everything.

    Raises:
        ModelError: the file is not a model that the farm can take.
        ExternalDataMissingError: a file is not where the model says.
        ExternalDataPathError: a symbolic link leads out of the model's folder: a model from somewhere
            else must not make this machine send its private files.
    """
    _, found = examine(path)
    files = {
        location: external_path(path, location) for location in sorted({item.location for item in found})
    }
    check_references(found, {location: file.stat().st_size for location, file in files.items()})
    digest, size = _hash(path, progress)
    external = []
    for location, file in files.items():
        file_digest, file_size = _hash(file, progress)
        external.append(ExternalFile(location=location, digest=file_digest, size_bytes=file_size))
    return ModelManifest(onnx=digest, onnx_size_bytes=size, external_data=tuple(external))


def external_path(model: Path, location: str) -> Path:
    """Where a location that ``check_location`` let pass lies, links resolved."""
    folder = model.parent.resolve()
    wanted = folder / location
    file = wanted.resolve()
    if not file.is_relative_to(folder):
        raise ExternalDataPathError(
            f"External data {location!r} is a link that leaves the folder {folder}.",
            hint="Copy the model with its files: cp -rL.",
            location=location,
        )
    if not file.is_file():
        raise ExternalDataMissingError(
            f"The model needs external data {location!r}, and there is no file {wanted}.",
            hint="Put it beside the ONNX file under the name that it was exported with.",
            location=location,
        )
    return file


def _hash(path: Path, progress: Progress | None) -> tuple[Digest, int]:
    size = 0

    def chunks() -> Iterator[bytes]:
        nonlocal size
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                size += len(chunk)
                yield chunk
                if progress:
                    progress(len(chunk))

    return Digest.of_chunks(chunks()), size
