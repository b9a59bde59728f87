"""Names of models: ``detector:prod`` stands for a digest, and can be moved to another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AwareDatetime, GetPydanticSchema, WithJsonSchema
from pydantic_core import core_schema

from trtfarm.contract.digest import Digest
from trtfarm.contract.value import Value
from trtfarm.errors import InvalidNameError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

LATEST = "latest"
MAX_NAME_CHARACTERS = 200
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_REFERENCE = re.compile(rf"({_NAME})(?::({_TAG}))?")
_RESERVED = "sha256"  # else a name and a digest could not be told apart
_HINT = (
    "Write name or name:tag, as detector:prod or vision/detector:v1.2. A name has lower-case letters and "
    "digits, with single . _ - or / between them; a tag letters, digits, . _ and -."
)


class ModelName(str):
    """``name:tag`` by the rules of OCI references; without a tag, ``latest`` is meant, as there.

    ``latest`` is a tag as any other: it moves when it is moved, not by itself.

    Raises:
        InvalidNameError: the text is no such name.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        match = _REFERENCE.fullmatch(text) if len(text) <= MAX_NAME_CHARACTERS + 129 else None
        if match is None or match[1] == _RESERVED or len(match[1]) > MAX_NAME_CHARACTERS:
            raise InvalidNameError(f"{text[:80]!r} is not a name of a model.", hint=_HINT)
        return super().__new__(cls, f"{match[1]}:{match[2] or LATEST}")

    @property
    def name(self) -> str:
        return self.partition(":")[0]

    @property
    def tag(self) -> str:
        return self.partition(":")[2]

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{_REFERENCE.pattern}$"}


def model_reference(text: str) -> Digest | ModelName:
    """A digest in full, or a name.

    Raises:
        InvalidDigestError: it starts as a digest and is none.
        InvalidNameError: it is neither.
    """
    return Digest(text) if text.startswith(f"{_RESERVED}:") else ModelName(text)


ModelReference = Annotated[
    Digest | ModelName,
    GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_after_validator_function(
            model_reference, core_schema.str_schema()
        )
    ),
    WithJsonSchema({"type": "string", "description": "A model's digest, or name:tag."}),
]


class NameRequest(Value):
    """What a name is to stand for: a digest, or what another name stands for now."""

    model: ModelReference


class NameMove(Value):
    """A change of what a name stands for. ``model`` is None when the name was taken away.

    ``by``: the id of the API key that did it, or ``local``.
    """

    model: Digest | None
    previous: Digest | None
    at: AwareDatetime
    by: str


class NameView(Value):
    """``model`` is None for a name that was taken away. ``moves``: newest first; only with one name."""

    reference: ModelName
    model: Digest | None
    moved_at: AwareDatetime
    moves: tuple[NameMove, ...] | None = None


class NamePage(Value):
    """In alphabetical order. ``next`` goes into ``?cursor=``."""

    names: tuple[NameView, ...]
    next: ModelName | None


class ModelSummary(Value):
    """A model of the list, with the names that stand for it now."""

    digest: Digest
    size_bytes: int
    names: tuple[ModelName, ...]
    created_at: AwareDatetime


class ModelPage(Value):
    """Newest first. ``next`` goes into ``?cursor=``."""

    models: tuple[ModelSummary, ...]
    next: Digest | None
