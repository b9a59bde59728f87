"""Models: what an ONNX file says of itself, and the files that a model consists of."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from trtfarm.contract.digest import Digest
from trtfarm.contract.profiles import TensorInfo
from trtfarm.contract.value import Value, canonical_json
from trtfarm.errors import ExternalDataPathError

MAX_LOCATION_BYTES = 255
_DRIVE = re.compile(r"[A-Za-z]:")


def check_location(location: str) -> str:
    """An external data location, as it is: a relative path that stays below the model's folder.

    The text decides alone; nothing is looked up. Symbolic links are the affair of whoever opens it.

    Raises:
        ExternalDataPathError: it could name something elsewhere, or reads differently on another system.
    """
    reason = _objection(location) or _objection(unicodedata.normalize("NFKC", location))
    if reason:
        raise ExternalDataPathError(
            f"External data location {location[:80]!r} is not allowed: {reason}.",
            hint="Save the model with its external data next to it: onnx.save_model(model, path, "
            "save_as_external_data=True, location='weights.bin').",
            location=location[:80].encode("utf-8", "backslashreplace").decode(),
        )
    return location


def check_side_by_side(locations: Iterable[str]) -> None:
    """Whether all of them could lie on any disk, also on one that takes ``A`` and ``a`` for the same name.

    Raises:
        ExternalDataPathError: two would be one file, or one would be a file and a folder.
    """
    files: dict[str, str] = {}
    for location in locations:
        name = _folded(location)
        if name in files:
            other = files[name]
            raise ExternalDataPathError(
                f"External data {location!r} is listed twice."
                if other == location
                else f"External data {other!r} and {location!r} are one file on some disks.",
                hint="Save the model again, with its external data in one file.",
            )
        files[name] = location
    for name, location in files.items():
        folder = posixpath.dirname(name)
        while folder:
            if folder in files:
                raise ExternalDataPathError(
                    f"External data {files[folder]!r} is a file, and a folder of {location!r}.",
                    hint="Save the model again, with its external data in one file.",
                )
            folder = posixpath.dirname(folder)


def _folded(location: str) -> str:
    """The same for names that some file system does not tell apart."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", location).casefold())


def _objection(location: str) -> str | None:
    reasons = (
        (location in {"", "."}, "it names no file"),
        (not location.isprintable(), "it contains characters that cannot be shown"),
        (
            len(location.encode("utf-8", "replace")) > MAX_LOCATION_BYTES,
            f"it has over {MAX_LOCATION_BYTES} bytes",
        ),
        ("\\" in location or _DRIVE.match(location), "it is a Windows path"),
        (location.startswith("/"), "it is absolute"),
        (".." in location.split("/"), "it leaves the folder"),
        (posixpath.normpath(location) != location, "it is not in normal form"),
    )
    return next((reason for applies, reason in reasons if applies), None)


class ModelInfo(Value):
    """What was read from an ONNX file.

    Attributes:
        inputs: graph inputs that a caller must feed; those with an initializer are left out.
        opsets: domain → version; ONNX's own domain is written ``ai.onnx``.
        node_count: nodes of the graph, its subgraphs and its functions, each function counted once.
        external_data: locations, sorted, each once.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ir_version: int
    opsets: dict[str, int]
    node_count: int
    external_data: tuple[str, ...] = ()


class ExternalFile(Value):
    """A file of weights beside the ONNX file."""

    location: Annotated[str, AfterValidator(check_location)]
    digest: Digest
    size_bytes: int = Field(ge=0)


def _set_of_files(files: tuple[ExternalFile, ...]) -> tuple[ExternalFile, ...]:
    """Sorted; refuses entries that could not lie side by side."""
    check_side_by_side(file.location for file in files)
    return tuple(sorted(files, key=lambda file: file.location))


class ModelManifest(Value):
    """The files of a model, by digest.

    Attributes:
        onnx: digest of the ONNX file.
        onnx_size_bytes: size of the ONNX file alone.
        external_data: sorted by location, whatever order was given.
    """

    onnx: Digest
    onnx_size_bytes: int = Field(ge=0)
    external_data: Annotated[tuple[ExternalFile, ...], AfterValidator(_set_of_files)] = ()

    @property
    def digest(self) -> Digest:
        """The model's identity: the ONNX file's own digest, unless there is external data."""
        if not self.external_data:
            return self.onnx
        files = {file.location: file.digest for file in self.external_data}
        return Digest.of_bytes(canonical_json({"onnx": self.onnx, "external_data": files}))

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return self.onnx_size_bytes + sum(file.size_bytes for file in self.external_data)
