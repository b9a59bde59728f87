"""What a command says: one JSON document on standard output, or text for people.

Nothing that strangers wrote reaches a terminal as it is: control characters and those that change the
direction of text are shown by their numbers, and markup is not read. All that is said goes through here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trtfarm.contract.text import visible, visible_in_json
from trtfarm.errors import TrtFarmError

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?) ?((?P<unit>[KMGT]?)(iB|B)?)", re.IGNORECASE)


class PlainConsole(Console):
    """Prints text as it reads: no markup, no emoji, and nothing hidden but ends of lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich drops some of what is hidden: here, it is shown."""
        return super().render_str(visible(text, keep="\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield Segment(visible(text, keep="\n"), style) if control is None else segment


stderr = PlainConsole(stderr=True, soft_wrap=True)


def stdout() -> PlainConsole:
    """For tables. A pipe has no width: rows stay whole."""
    return PlainConsole(width=None if sys.stdout.isatty() else 400)


def shown(text: str, style: str = "") -> Text:
    """For tables and what is drawn anew."""
    return Text(visible(text, keep="\n"), style)


def say(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(f"{visible(text)}\n")


def print_log(text: str) -> None:
    """To a terminal without what it would obey; to a file or a pipe as it is."""
    sys.stdout.write(visible(text, keep="\n\t") if sys.stdout.isatty() else text)


def print_json(document: Any) -> None:
    """Readable where it can be: what a reader would not see is escaped as JSON does it."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    sys.stdout.write(f"{visible_in_json(text)}\n")


def print_error(error: TrtFarmError, *, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.hint:
            document["hint"] = error.hint
        print_json({"error": document})
        return
    stderr.print(Text("error", style="bold red"), f"[{error.code}]", error.message)
    if error.hint:
        stderr.print(error.hint)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """To standard output; ``empty`` is said instead of a table without rows."""
    listed = [[str(cell) for cell in row] for row in rows]
    if not listed:
        stderr.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in listed:
        table.add_row(*map(shown, row))
    stdout().print(table)


def print_fields(fields: dict[str, object]) -> None:
    width = max(map(len, fields))
    for name, value in fields.items():
        if value is not None:
            first, *more = str(value).split("\n")
            say(f"{name:<{width}}  {first}")
            for line in more:  # below it, so that it cannot be taken for a field
                say(f"{'':<{width}}  {line}")


def size_bytes(text: str) -> int:
    """The bytes that ``50GiB``, ``1.5T`` or a plain number say: 1 K is 1024. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write it as 50GiB.")
    return int(float(match["number"]) * 1024 ** "BKMGT".index((match["unit"] or "B").upper()))


def size(size_bytes: int) -> str:
    """``2.8 MiB``."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


class PlainFormatter(logging.Formatter):
    """Log lines whose messages stay one line each, whatever they quote."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return visible(super().formatException(ei), keep="\n\t")
