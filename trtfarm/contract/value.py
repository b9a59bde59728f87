"""The base of every value of the contract."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

NO_NUL = r"^[^\x00]*$"
"""A pattern of names: PostgreSQL cannot keep a NUL, and neither can TensorRT."""


class Value(BaseModel):
    """Frozen, compared by content, refuses unknown fields, and numbers that JSON does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def canonical_json(document: Any) -> bytes:
    """The one spelling of a JSON document that digests are taken of.

    Keys sorted, no spaces, ASCII only, NaN and infinities refused.
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")
