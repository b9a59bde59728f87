"""Messages between a worker and its TensorRT child: one JSON document a line, over a pipe each way."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from trtfarm.contract.benchmark import BenchmarkOptions, Measurement
from trtfarm.contract.device import Device
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.v1 import ErrorView
from trtfarm.contract.value import Value, canonical_json
from trtfarm.sandbox import Mode, Part

TIMES, PROFILE, LAYERS = "times.json", "profile.json", "layers.json"
"""What a benchmark writes: the form of trtexec's --exportTimes, --exportProfile and --exportLayerInfo."""


class ChildSetup(Value):
    """How a child confines itself; its last argument.

    Attributes:
        control_fd: a pipe on which a child that forks tells how each request's process ended.
        box: a folder with ``in`` and ``out``: all that a request names lies there.
        memory_bytes, file_bytes: limits of a request's process; no memory limit on a GPU.
    """

    control_fd: int
    box: str
    sandbox: Mode
    memory_bytes: int
    file_bytes: int


# --- requests; paths are absolute, and the child appends to ``log_path`` ---


class BuildRequest(Value):
    """The child writes ``plan_path``, ``io_path`` and, if given, ``timing_cache_out``."""

    op: Literal["build"] = "build"
    spec: BuildSpec
    model_path: str
    plan_path: str
    io_path: str
    log_path: str
    timing_cache_in: str | None = None
    timing_cache_out: str | None = None


class BenchmarkRequest(Value):
    """The child writes ``times.json``, ``profile.json`` and ``layers.json`` into ``folder``.

    ``input_paths``: files with the raw values of inputs, by name.
    """

    op: Literal["benchmark"] = "benchmark"
    plan_path: str
    device: Device
    options: BenchmarkOptions
    input_paths: dict[str, str] = Field(default_factory=dict)
    folder: str
    log_path: str


class CombineRequest(Value):
    """Timing caches: ``addition``'s entries go into a copy of ``base``."""

    op: Literal["combine"] = "combine"
    base: str
    addition: str
    destination: str
    log_path: str


ChildRequest = Annotated[BuildRequest | BenchmarkRequest | CombineRequest, Field(discriminator="op")]
child_request: TypeAdapter[ChildRequest] = TypeAdapter(ChildRequest)

# --- answers; a model that has taken its process over may have written them ---

_TEXT_CHARACTERS = 4000
_DETAILS_BYTES = 8192
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,63}")


def _shortened(text: str) -> str:
    if len(text) > _TEXT_CHARACTERS:
        text = f"{text[:_TEXT_CHARACTERS]} […]"
    return text.replace("\0", "\\0")  # which PostgreSQL cannot keep


def _bounded(error: ErrorView) -> ErrorView:
    details = canonical_json(error.details)
    fits = len(details) <= _DETAILS_BYTES and b"\\u0000" not in details
    return ErrorView(
        code=error.code if _CODE.fullmatch(error.code) else "BUILD_FAILED",
        message=_shortened(error.message),
        hint=error.hint and _shortened(error.hint),
        details=error.details if fits else {},
    )


def _fraction(part: float | None) -> float | None:
    return None if part is None else min(max(part, 0.0), 1.0)


Text = Annotated[str, AfterValidator(_shortened)]
BoundedError = Annotated[ErrorView, AfterValidator(_bounded)]


class Ready(Value):
    """The first message of a child: the runtime it has loaded.

    Attributes:
        gpus: targets of ahead-of-time builds; empty where TensorRT builds for the GPU it sits on, which has
            ``multiprocessors``.
        sandbox: what is in force while a model is read.
        forks: each request runs in a process of its own, and ``Ended`` tells that it is gone.
    """

    event: Literal["ready"] = "ready"
    runtime: str
    gpus: tuple[str, ...]
    multiprocessors: int | None = None
    sandbox: tuple[Part, ...] = ()
    forks: bool = False


class Progressed(Value):
    event: Literal["progress"] = "progress"
    stage: Text
    fraction: Annotated[float | None, AfterValidator(_fraction)]


class CacheReport(Value):
    """``attached``: TensorRT took the given cache. Entries: None where it cannot tell."""

    attached: bool
    entries_before: int | None
    entries_after: int | None
    bytes_before: int
    bytes_after: int


class Built(Value):
    """The files are complete. ``rss_bytes``: the child's peak resident memory so far."""

    event: Literal["built"] = "built"
    build_seconds: float
    rss_bytes: int
    timing_cache: CacheReport | None = None


class Measured(Value):
    event: Literal["measured"] = "measured"
    measurement: Measurement
    rss_bytes: int


class Combined(Value):
    """``ok``: TensorRT found the caches compatible."""

    event: Literal["combined"] = "combined"
    ok: bool
    rss_bytes: int


class Failed(Value):
    """``tainted``: TensorRT gave up half-way, and what this process builds next may differ."""

    event: Literal["failed"] = "failed"
    error: BoundedError
    retryable: bool = False
    tainted: bool = False


Done = Built | Measured | Combined
ChildMessage = Annotated[
    Ready | Progressed | Built | Measured | Combined | Failed, Field(discriminator="event")
]
child_message: TypeAdapter[ChildMessage] = TypeAdapter(ChildMessage)


class Ended(Value):
    """Told by a child that forks, on its own pipe: the request's process is gone.

    ``status``: as subprocess gives it, negative for a signal.
    """

    status: int
