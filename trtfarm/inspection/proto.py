"""From bytes to a ``ModelProto``, with an answer to why not."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from trtfarm.errors import (
    ModelError,
    NotOnnxError,
    OnnxTooDeepError,
    OnnxTooLargeError,
    OnnxTruncatedError,
    ResourceLimitError,
)
from trtfarm.inspection.sniff import HEAD_BYTES, sniff

if TYPE_CHECKING:
    from onnx import ModelProto

MAX_PROTO_BYTES: Final = 2**31 - 1
"""Protobuf's own limit."""
_MAX_WALKED: Final = 100_000


def read_model(source: Path | BinaryIO) -> ModelProto:
    """Parses one file and touches no other: external data is neither read nor looked for.

    Takes twice the size of the file in memory.

    Raises:
        ModelError: of the kind that fits; also where the file cannot be opened.
    """
    if not isinstance(source, Path):
        return parse_model(_bytes(source, "The upload"))
    name = repr(source.name)
    try:
        if not source.is_file():  # not opened, as a pipe would wait there
            source.stat()
            raise NotOnnxError(f"{name} is not a file.")
        with source.open("rb") as file:
            return parse_model(_bytes(file, name))
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror}.") from error


def _bytes(file: BinaryIO, name: str) -> bytes:
    """All of them, unless the first say that it is no model."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise NotOnnxError(f"{name} is not a file.")
    sniff(file.read(HEAD_BYTES), status.st_size)
    if status.st_size > MAX_PROTO_BYTES:
        raise OnnxTooLargeError(size_bytes=status.st_size)
    file.seek(0)
    return file.read(status.st_size)  # that many bytes are reserved at once


def parse_model(data: bytes) -> ModelProto:
    """
    Raises:
        NotOnnxError: the bytes begin like no ONNX model, or have no graph and no version.
        OnnxTruncatedError: they begin like one and end too early.
        ModelError: anything else that is wrong with the encoding.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
    from onnx import ModelProto

    try:
        model: ModelProto = ModelProto.FromString(data)
    except DecodeError as error:
        raise _why(data, str(error)) from None
    if not model.HasField("graph") and not model.ir_version:
        raise NotOnnxError(hint="It has neither a graph nor an IR version.")
    return model


def _why(data: bytes, reason: str) -> ModelError:
    """The parser's words tell depth and memory apart; where they change, the error is less exact."""
    if "MaxDepth" in reason:
        return OnnxTooDeepError()
    if "alloc" in reason:
        return ResourceLimitError()
    complete, missing = _walk(data)
    if not complete:
        return NotOnnxError(hint="It begins like no ONNX model.")
    if missing:
        return OnnxTruncatedError(
            f"The file ends {missing} or more bytes too early." if missing > 1 else None,
            hint="Copy or download it again.",
            missing_bytes=missing,
        )
    return ModelError("The file begins like an ONNX model and is damaged further on.")


def _walk(data: bytes) -> tuple[int, int]:
    """Top-level fields: how many are complete, and how many bytes the next one lacks (0: damaged).

    A model has a handful; among very many, the place of the damage is not looked for.
    """
    from onnx import ModelProto

    known = ModelProto.DESCRIPTOR.fields_by_number
    position = complete = 0
    try:
        while position < len(data) and complete < _MAX_WALKED:
            tag, position = _varint(data, position)
            if tag >> 3 not in known:
                return complete, 0
            if tag & 7 == 2:
                length, position = _varint(data, position)
                position += length
            elif tag & 7 == 0:
                _, position = _varint(data, position)
            else:
                return complete, 0
            if position > len(data):
                missing = position - len(data)
                return complete, missing if position <= MAX_PROTO_BYTES else 0
            complete += 1
    except IndexError:
        return complete, 1
    return complete, 0


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift >= 70:
            return value, position
