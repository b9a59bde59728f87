"""Messages between a worker and its TensorRT child: one JSON document a line, over a pipe each way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.v1 import ErrorView
from trtfarm.contract.value import Value


class BuildRequest(Value):
    """Paths are absolute; the child writes ``plan_path`` and ``io_path`` and appends to ``log_path``."""

    spec: BuildSpec
    model_path: str
    plan_path: str
    io_path: str
    log_path: str


class Ready(Value):
    """The first message of a child: the runtime it has loaded and what that builds for."""

    event: Literal["ready"] = "ready"
    runtime: str
    gpus: tuple[str, ...]


class Progressed(Value):
    event: Literal["progress"] = "progress"
    stage: str
    fraction: float | None


class Built(Value):
    """Both files are complete. ``rss_bytes``: the child's peak resident memory so far."""

    event: Literal["built"] = "built"
    build_seconds: float
    rss_bytes: int


class Failed(Value):
    event: Literal["failed"] = "failed"
    error: ErrorView
    retryable: bool = False


ChildMessage = Annotated[Ready | Progressed | Built | Failed, Field(discriminator="event")]
child_message: TypeAdapter[ChildMessage] = TypeAdapter(ChildMessage)
