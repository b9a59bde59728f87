"""Runs the converter."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.typed import io_types
from trtfarm.contract.v1 import ErrorView
from trtfarm.contract.value import Value
from trtfarm.errors import BuildError, InvalidRequestError

HINT = "Convert the model yourself, and submit it without --fp16."
TYPED = "typed.onnx"
ACCOUNT = ".txt"  # instead of .onnx: what was done to the model, for people
_MODULE = "trtfarm_worker.conversion.process"


class Order(Value):
    """What the process is told. ``inputs``, ``outputs``: as ``io_types`` gives them; ``layers``: by name."""

    model: str
    destination: str
    parent_pid: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: dict[str, str]


class ConversionError(BuildError):
    """The model could not be given the types that were asked for."""

    code = "CONVERSION_FAILED"


class ConverterUnavailableError(BuildError):
    """The worker does not have the converter that the build is to use."""

    code = "CONVERTER_UNAVAILABLE"


_KINDS = {kind.code: kind for kind in (ConversionError, InvalidRequestError)}


def to_fp16(spec: BuildSpec, model: Path, folder: Path) -> Path:
    """A copy of the model in ``folder`` that computes in float16; inputs and outputs keep their types.

    The process writes its messages to this one's standard error, and ends with it.

    Raises:
        ConverterUnavailableError: not installed here, or in another version.
        ConversionError: the converter failed.
        InvalidRequestError: the asked types do not fit the model's inputs, outputs or layers.
    """
    _check_installed(spec.converter or "")
    destination = folder / TYPED
    order = Order(
        model=str(model),
        destination=str(destination),
        parent_pid=os.getpid(),
        inputs=io_types(spec.config.input_io_formats),
        outputs=io_types(spec.config.output_io_formats),
        layers=spec.config.layer_precisions or {},
    )
    command = [sys.executable, "-m", _MODULE, order.model_dump_json()]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode == 0:
        return destination
    try:
        view = ErrorView.model_validate_json(done.stdout)
    except ValidationError:
        raise ConversionError(
            f"The converter {_end(done.returncode)}.",
            hint="The job's log has its last words; the kernel's log tells of a lack of memory (SIGKILL).",
        ) from None
    raise _KINDS.get(view.code, ConversionError)(view.message, hint=view.hint, **view.details)


def _check_installed(wanted: str) -> None:
    name, _, version = wanted.rpartition("-")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if found != version:
        has = f"has {name} {found}" if found else f"has no {name}"
        raise ConverterUnavailableError(
            f"The model is to be converted by {name} {version}; this worker {has}.",
            hint=f"On the worker: pip install {name}=={version}",
        )


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"ended with {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"ended with signal {-status}"
