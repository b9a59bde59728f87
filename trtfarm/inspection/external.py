"""External data: which parts of which files a model's tensors are read from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtfarm.contract.models import check_location
from trtfarm.errors import (
    ExternalDataKeyError,
    ExternalDataMissingError,
    ExternalDataPathError,
    ExternalDataRangeError,
)

if TYPE_CHECKING:
    from onnx import TensorProto

KEYS = frozenset({"location", "offset", "length", "checksum"})
_NUMBER = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A tensor's bytes. Without a length they reach to the end of the file."""

    location: str
    offset: int
    length: int | None


def references(tensors: Iterable[TensorProto]) -> frozenset[Reference]:
    """Which bytes the external ones among a model's tensors are read from.

    Raises:
        ExternalDataError: an entry is malformed or leaves the model's folder.
    """
    return frozenset(map(_reference, tensors))


def check_references(found: Iterable[Reference], sizes: Mapping[str, int]) -> None:
    """Every reference against the files that are there.

    Args:
        found: what the model reads.
        sizes: location → bytes, of the files that were given.

    Raises:
        ExternalDataMissingError: a file was not given.
        ExternalDataRangeError: a file is too short.
    """
    for item in found:
        size = sizes.get(item.location)
        if size is None:
            raise ExternalDataMissingError(
                f"The model needs external data {item.location!r}, which was not given.",
                location=item.location,
            )
        end = item.offset + (item.length or 0)
        if end > size:
            raise ExternalDataRangeError(
                f"The model reads {item.location!r} up to byte {end}; the file has {size}.",
                location=item.location,
            )


def _reference(tensor: TensorProto) -> Reference:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in KEYS or entry.key in entries:
            problem = "twice" if entry.key in KEYS else "which ONNX does not know"
            raise ExternalDataKeyError(f"External data has the key {entry.key[:80]!r}, {problem}.")
        entries[entry.key] = entry.value
    location = entries.get("location", "")
    if not isinstance(location, str):  # protobuf's answer to what is not UTF-8
        raise ExternalDataPathError(f"External data location {location!r:.200} is not UTF-8.")
    check_location(location)
    offset, length = _number(entries, "offset"), _number(entries, "length")
    return Reference(location, offset or 0, length)


def _number(entries: Mapping[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not isinstance(text, str) or not _NUMBER.fullmatch(text) or int(text) >= 2**63:
        raise ExternalDataRangeError(
            f"External data has the {key} {text[:80]!r}, which is no number of bytes."
        )
    return int(text)
