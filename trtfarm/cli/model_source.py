"""The model that a command is given: a file to upload, or one that the farm has."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from trtfarm.cli.output import stderr
from trtfarm.compose.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName, model_reference
from trtfarm.errors import InvalidDigestError, InvalidNameError, LocalFileError

ModelSource = Path | Digest | ModelName


def model_source(text: str) -> ModelSource:
    """A file that is there; else a digest or ``name:tag``.

    Raises:
        LocalFileError: neither.
    """
    path = Path(text)
    if not path.exists() and ":" in text:
        try:
            return model_reference(text)
        except InvalidDigestError:
            raise
        except InvalidNameError as error:
            raise LocalFileError(f"{text}: there is no such file.", hint=error.hint) from error
    if not path.exists():
        raise LocalFileError(
            f"{text}: there is no such file.",
            hint="A model that the farm has is given by its digest or as name:tag; trtfarm model list.",
        )
    return path


def find_model(farm: Farm, source: ModelSource, *, quiet: bool) -> Digest:
    """The digest of a model that the farm has now. Raises NameNotFoundError, ModelError."""
    if isinstance(source, Path):
        return upload(farm, source, quiet=quiet)
    return farm.model(source).digest


def upload(farm: Farm, model: Path, *, quiet: bool) -> Digest:
    """Hashes and sends a model, with a progress bar for what takes longer than a moment."""
    from trtfarm.inspection.manifest import manifest_of

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        hashing = bar.add_task(f"reading {model.name}", total=None)
        manifest = manifest_of(model, lambda count: bar.advance(hashing, count))
        bar.remove_task(hashing)
        sending = bar.add_task(f"uploading {model.name}", total=manifest.size_bytes)
        return farm.upload_model(model, manifest, lambda count: bar.advance(sending, count))


def stem(source: ModelSource) -> str:
    """For names of files: ``resnet50.onnx`` → ``resnet50``, ``vision/detector:prod`` → ``detector-prod``."""
    if isinstance(source, Path):
        return source.stem
    if isinstance(source, Digest):
        return source.short
    return f"{source.name.rpartition('/')[2]}-{source.tag}"
