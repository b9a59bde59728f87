"""The model that TensorRT parses: as it was submitted, or converted, once for all targets of a worker."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.spec import KEY_VERSION, BuildSpec
from trtfarm.contract.support import refuse_unsupported
from trtfarm.contract.target import Runtime
from trtfarm.contract.typed import io_types
from trtfarm.contract.value import canonical_json
from trtfarm_worker.child.log_limit import LogLimit
from trtfarm_worker.child.stall import Stall, cpu_seconds
from trtfarm_worker.conversion import result
from trtfarm_worker.conversion.convert import TYPED, Bounds, to_fp16
from trtfarm_worker.model_cache import CachedModel
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.work import StoppedError, Watch

# Of a process that holds the model a few times, and what it gives: the types are half as wide.
_MEMORY_BYTES, _MEMORY_TIMES = 4 << 30, 8
_FILE_BYTES, _FILE_TIMES = 64 << 20, 2


class TypedModels:
    """Converts in a process of its own, checks what that has made, and keeps it beside the model.

    ``folder``: of the attempt, on the disk of the model cache. ``log``: of the job.
    """

    def __init__(self, settings: WorkerSettings, folder: Path, log: Path) -> None:
        self._settings, self._folder, self._log = settings, folder, log

    @contextlib.contextmanager
    def path(self, spec: BuildSpec, model: CachedModel, watch: Watch) -> Iterator[Path]:
        """The ONNX file to build from, for the time of the block.

        Raises:
            ConversionError, ConverterUnavailableError, InvalidRequestError: as ``to_fp16``.
            OptionUnsupportedError: it could not be built anyhow.
            ConfigurationError: as ``to_fp16``.
            StoppedError: the attempt must end.
        """
        if spec.converter is None:
            yield model.onnx
            return
        kept = model.typed / _key(spec)
        if kept.is_dir():
            yield self._told(kept / TYPED)
            return
        refuse_unsupported(spec.config, Runtime.parse(spec.target.runtime))
        watch.stage("converting to fp16")
        with tempfile.TemporaryDirectory(
            prefix="typed.", dir=self._folder, ignore_cleanup_errors=True
        ) as parent:
            made, checked = Path(parent, "made"), Path(parent, "checked")
            made.mkdir()
            checked.mkdir()
            file_bytes = _FILE_BYTES + _FILE_TIMES * model.size_bytes
            to_fp16(spec, model.onnx, self._bounds(made, model, file_bytes, watch))
            typed = result.take(made, checked, file_bytes)
            result.inspect(typed, self._settings.sandbox, watch.check)
            yield self._told((kept if _keep(checked, kept) else checked) / TYPED)

    def _bounds(self, folder: Path, model: CachedModel, file_bytes: int, watch: Watch) -> Bounds:
        pids: list[int] = []
        stalled = Stall(self._settings.no_progress_seconds, self._log, lambda: sum(map(cpu_seconds, pids)))
        log_limit = LogLimit(self._log, self._settings.log_bytes)

        def look(pid: int) -> None:
            pids[:] = [pid]
            log_limit.look()
            watch.check()
            if stalled():
                raise StoppedError(Outcome.TIMEOUT, stalled=True)

        return Bounds(
            folder=folder,
            log=self._log,
            memory_bytes=_MEMORY_BYTES + _MEMORY_TIMES * model.size_bytes,
            file_bytes=file_bytes,
            sandbox=self._settings.sandbox,
            watch=look,
        )

    def _told(self, typed: Path) -> Path:
        """Into the job's log."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write(result.account(typed))
        return typed


def _key(spec: BuildSpec) -> str:
    """Of all that the converter is told, but for the model."""
    config = spec.config
    asked = [
        KEY_VERSION,
        spec.converter,
        io_types(config.input_io_formats),
        io_types(config.output_io_formats),
        config.layer_precisions or {},
    ]
    return Digest.of_bytes(canonical_json(asked)).hex


def _keep(checked: Path, destination: Path) -> bool:
    """Moves the folder; not if another build was sooner, or ``destination`` is on another disk."""
    try:
        destination.parent.mkdir(exist_ok=True)
        checked.rename(destination)
    except OSError:
        return False
    return True
