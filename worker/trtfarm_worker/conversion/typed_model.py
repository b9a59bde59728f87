"""The model that TensorRT parses: as it was submitted, or converted, once for all targets of a worker."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.value import canonical_json
from trtfarm_worker.child.protocol import BuildRequest
from trtfarm_worker.conversion.convert import ACCOUNT, TYPED, to_fp16


@contextlib.contextmanager
def typed_model(request: BuildRequest, on_progress: Callable[[str, float | None], None]) -> Iterator[Path]:
    """Its path, for the time of the block.

    A converted one is kept in ``request.typed_folder``, if that is given, for other targets.

    Raises:
        ConversionError, ConverterUnavailableError, InvalidRequestError: as ``to_fp16``.
    """
    model = Path(request.model_path)
    if request.spec.converter is None:
        yield model
        return
    kept = Path(request.typed_folder) / _key(request.spec) if request.typed_folder else None
    if kept is not None and kept.is_dir():
        yield _told(kept / TYPED)
        return
    on_progress("converting to fp16", None)
    with tempfile.TemporaryDirectory(prefix="typed.", dir=Path(request.plan_path).parent) as parent:
        folder = Path(parent) / "model"
        folder.mkdir()
        to_fp16(request.spec, model, folder)
        yield _told((kept if kept is not None and _keep(folder, kept) else folder) / TYPED)


def _told(typed: Path) -> Path:
    """Into the job's log."""
    sys.stderr.write(typed.with_suffix(ACCOUNT).read_text(encoding="utf-8"))
    return typed


def _key(spec: BuildSpec) -> str:
    """Of all that the converter is told, but for the model."""
    config = spec.config
    asked = [spec.converter, config.input_io_formats, config.output_io_formats, config.layer_precisions]
    return Digest.of_bytes(canonical_json(asked)).hex


def _keep(folder: Path, destination: Path) -> bool:
    """Moves the whole folder; not if another build was sooner, or ``destination`` is on another disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a machine that dies must not leave half a model under this name
    try:
        destination.parent.mkdir(exist_ok=True)
        folder.rename(destination)
    except OSError:
        return False
    return True
