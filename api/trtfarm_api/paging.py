"""Cursors: the id of the last row of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator

from trtfarm.contract.benchmark import BenchmarkView
from trtfarm.contract.v1 import JobView, PlanView
from trtfarm.errors import InvalidCursorError


def _check(cursor: str | None) -> str | None:
    if cursor is not None:
        try:
            canonical = str(UUID(cursor))
        except ValueError:
            raise InvalidCursorError from None
        if canonical != cursor:  # rows are compared with it as text
            raise InvalidCursorError
    return cursor


Cursor = Annotated[str | None, AfterValidator(_check), Query(description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=500)]


def next_cursor(rows: Sequence[JobView | PlanView | BenchmarkView], limit: int) -> str | None:
    """Of rows that were read one beyond the page."""
    return rows[limit - 1].job_id if len(rows) > limit else None
