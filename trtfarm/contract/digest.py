"""Names of immutable bytes: ``sha256:`` and 64 lower-case hexadecimal digits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pydantic_core import core_schema

from trtfarm.errors import InvalidDigestError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
CHUNK_BYTES = 1 << 20


class Digest(str):
    """A validated digest. It is a ``str``, so it goes into JSON, SQL and URLs as it is.

    Raises:
        InvalidDigestError: the text is not a digest.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _PATTERN.fullmatch(text):
            raise InvalidDigestError(f"{text[:80]!r} is not a digest.", hint=InvalidDigestError.__doc__)
        return super().__new__(cls, text)

    @property
    def hex(self) -> str:
        return self[7:]

    @property
    def short(self) -> str:
        """Twelve digits for people; never a key."""
        return self[7:19]

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def of_chunks(cls, chunks: Iterable[bytes]) -> Self:
        sha = hashlib.sha256()
        for chunk in chunks:
            sha.update(chunk)
        return cls("sha256:" + sha.hexdigest())

    @classmethod
    def of_file(cls, file: BinaryIO) -> Self:
        """Of the rest of a binary file, from where it stands."""
        return cls.of_chunks(iter(lambda: file.read(CHUNK_BYTES), b""))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{_PATTERN.pattern}$"}
