"""Runs the converter: a process in a box, which may write one folder and answer once."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from trtfarm import sandbox
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.typed import io_types
from trtfarm.contract.v1 import ErrorView
from trtfarm.contract.value import Value
from trtfarm.errors import BuildError, ConfigurationError, InvalidRequestError
from trtfarm_worker.child.orphans import mark

HINT = "Convert the model yourself, and submit it without --fp16."
TYPED = "typed.onnx"
DATA = ".data"  # after .onnx: its weights, where they were outside of the file
ACCOUNT = ".txt"  # instead of .onnx: what was done to the model, for people
MODULE = "trtfarm_worker.conversion.process"
_ANSWER_BYTES = 1 << 16  # what a pipe holds: a process that writes more waits until it is killed
_POLL_SECONDS = 0.05
_SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}


class Order(Value):
    """What the process is told.

    Attributes:
        destination: where the typed model goes, in a folder that is the process's own.
        answer: descriptor of a pipe, for the ErrorView of a process that fails.
        inputs, outputs: as ``io_types`` gives them.
        layers: types by name.
        memory_bytes: of address space.
        file_bytes: how large a file may become.
    """

    model: str
    destination: str
    parent_pid: int
    answer: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: dict[str, str]
    memory_bytes: int
    file_bytes: int
    sandbox: sandbox.Mode


class Bounds(NamedTuple):
    """The limits of one conversion.

    Attributes:
        folder: empty; the process may write there, and nowhere else.
        log: gets what the process prints.
        memory_bytes, file_bytes: as in ``Order``.
        watch: called with the process's id again and again, and may raise: the process is killed then.
    """

    folder: Path
    log: Path
    memory_bytes: int
    file_bytes: int
    sandbox: sandbox.Mode
    watch: Callable[[int], None]


class ConversionError(BuildError):
    """The model could not be given the types that were asked for."""

    code = "CONVERSION_FAILED"


class ConverterUnavailableError(BuildError):
    """The worker does not have the converter that the build is to use."""

    code = "CONVERTER_UNAVAILABLE"


_KINDS = {kind.code: kind for kind in (ConversionError, InvalidRequestError, ConfigurationError)}


def to_fp16(spec: BuildSpec, model: Path, bounds: Bounds) -> None:
    """Has a copy of the model made that computes in float16; inputs and outputs keep their types.

    The process has ended when this returns. What it has left in its folder is not to be trusted.

    Raises:
        ConverterUnavailableError: not installed here, or in another version.
        ConversionError: the converter failed.
        InvalidRequestError: the asked types do not fit the model's inputs, outputs or layers.
        ConfigurationError: the process cannot be confined here.
    """
    _check_installed(spec.converter or "")
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as answers:
        try:
            order = Order(
                model=str(model),
                destination=str(bounds.folder / TYPED),
                parent_pid=os.getpid(),
                answer=write,
                inputs=io_types(spec.config.input_io_formats),
                outputs=io_types(spec.config.output_io_formats),
                layers=spec.config.layer_precisions or {},
                memory_bytes=bounds.memory_bytes,
                file_bytes=bounds.file_bytes,
                sandbox=bounds.sandbox,
            )
            status = _run(order, bounds)
        finally:
            os.close(write)
        if status == 0:
            return
        os.set_blocking(read, False)  # something that the process has left behind may hold the pipe open
        answer = answers.read(_ANSWER_BYTES) or b""
    try:
        view = ErrorView.model_validate_json(answer)
    except ValidationError:
        raise ConversionError(
            f"The converter {_end(status)}.",
            hint="The job's log has its last words; the kernel's log tells of a lack of memory (SIGKILL).",
        ) from None
    raise _KINDS.get(view.code, ConversionError)(view.message, hint=view.hint, **view.details)


def _run(order: Order, bounds: Bounds) -> int:
    """Returns the exit status, negative for a signal."""
    with bounds.log.open("ab") as log, tempfile.TemporaryFile() as told:
        told.write(order.model_dump_json().encode())  # an argument may have 128 KiB, and others could read it
        told.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=told,
            stdout=log,
            stderr=log,
            pass_fds=(order.answer,),
            env=sandbox.environment(**_SETTINGS, **mark()),
            start_new_session=True,  # Ctrl-C is for the worker; and one kill ends all that it has started
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL_SECONDS)
            bounds.watch(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
