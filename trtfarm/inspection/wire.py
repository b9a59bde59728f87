"""What the farm and its inspectors say to each other: plain documents with limits, as one may lie."""

from __future__ import annotations

import os
import socket
import struct
from typing import Literal

from pydantic import Field, ValidationError

from trtfarm.contract.models import ModelInfo
from trtfarm.contract.value import Value
from trtfarm.errors import ModelError, TrtFarmError, from_code
from trtfarm.inspection.inspect import MAX_DESCRIPTION_BYTES, check_description

MAX_REQUEST_BYTES = 16 << 20
MAX_ANSWER_BYTES = MAX_DESCRIPTION_BYTES + (64 << 10)
_MAX_TEXT = 4000
_LENGTH = struct.Struct("=I")


class Request(Value):
    """A model's file comes with it, open.

    Attributes:
        submitter: whose models one process may read one after another.
        sizes: see ``inspect_model``.
    """

    submitter: str
    sizes: dict[str, int] | None
    memory_bytes: int
    timeout_seconds: float


class Details(Value):
    """What errors of a model tell beyond their message."""

    location: str | None = Field(default=None, max_length=_MAX_TEXT)
    size_bytes: int | None = None
    missing_bytes: int | None = None


class Refusal(Value):
    code: str = Field(pattern=r"^[A-Z0-9_]{1,64}$")
    message: str = Field(max_length=_MAX_TEXT)
    hint: str | None = Field(default=None, max_length=_MAX_TEXT)
    details: Details = Details()


class Answer(Value):
    """Either of them. It comes from the process that has read the model, and so perhaps from the model."""

    info: ModelInfo | None = None
    refusal: Refusal | None = None


class NoAnswerError(Exception):
    """The process that reads models has not said what the farm expects."""


class Verdict(Value):
    """The word of the process that looks after the one that reads; ``answered``: an ``Answer`` follows."""

    fate: Literal["ready", "answered", "died", "timeout"]
    status: int = 0


def refusal_of(error: TrtFarmError) -> Refusal:
    known = {name: value for name, value in error.details.items() if name in Details.model_fields}
    return Refusal(
        code=error.code,
        message=error.message[:_MAX_TEXT],
        hint=error.hint and error.hint[:_MAX_TEXT],
        details=Details.model_validate(known),
    )


def info_of(data: bytes) -> ModelInfo:
    """What an answer says.

    Raises:
        ModelError: the model was refused.
        NoAnswerError: that is no answer of ours, or tells of a fault of ours.
    """
    try:
        answer = Answer.model_validate_json(data)
    except ValidationError:
        raise NoAnswerError("what was sent is no answer") from None
    if answer.info is not None:
        check_description(answer.info)
        return answer.info
    if answer.refusal is None:
        raise NoAnswerError("the answer is empty")
    told = answer.refusal
    error = from_code(told.code, told.message, told.hint, told.details.model_dump(exclude_none=True))
    if isinstance(error, ModelError):
        raise error
    raise NoAnswerError(f"{told.code}: {told.message!r}")


def send(line: socket.socket, *documents: bytes, descriptor: int | None = None) -> None:
    """Raises OSError: the other side is gone."""
    for document in documents:
        length = _LENGTH.pack(len(document))
        if descriptor is None:
            line.sendall(length)
        else:
            socket.send_fds(line, [length], [descriptor])
            descriptor = None
        line.sendall(document)


def write(line: socket.socket, document: bytes) -> None:
    """``send`` without the call of that name, which the sandbox refuses."""
    data = _LENGTH.pack(len(document)) + document
    while data:
        data = data[os.write(line.fileno(), data) :]


def receive(line: socket.socket, limit_bytes: int) -> bytes:
    """
    Raises:
        OSError, EOFError: the other side is gone, or silent for the socket's time limit.
        ValueError: it sends more than ``limit_bytes``.
    """
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size))
    if length > limit_bytes:
        raise ValueError("too long")
    return _exactly(line, length)


def receive_with_file(line: socket.socket, limit_bytes: int) -> tuple[bytes, int]:
    """As ``receive``, with the descriptor that came along."""
    head, descriptors, _, _ = socket.recv_fds(line, _LENGTH.size, 1)
    if not head or not descriptors:
        for each in descriptors:
            os.close(each)
        raise EOFError
    head += _exactly(line, _LENGTH.size - len(head))
    (length,) = _LENGTH.unpack(head)
    if length > limit_bytes:
        raise ValueError("too long")
    return _exactly(line, length), descriptors[0]


def _exactly(line: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = line.recv(min(count - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
