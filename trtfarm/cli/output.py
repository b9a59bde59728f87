"""What a command says: one JSON document on standard output, or text for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from trtfarm.errors import TrtFarmError

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?) ?((?P<unit>[KMGT]?)(iB|B)?)", re.IGNORECASE)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_error(error: TrtFarmError, *, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.hint:
            document["hint"] = error.hint
        print_json({"error": document})
        return
    stderr.print(f"[bold red]error[/] [{error.code}] ", end="", markup=True)
    stderr.print(error.message, markup=False)
    if error.hint:
        stderr.print(error.hint, markup=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """To standard output; ``empty`` is said instead of a table without rows."""
    listed = [[str(cell) for cell in row] for row in rows]
    if not listed:
        stderr.print(empty, markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in listed:
        table.add_row(*(_plain(cell) for cell in row))
    # A pipe has no width: rows stay whole.
    width = None if sys.stdout.isatty() else 400
    Console(width=width, highlight=False).print(table)


def print_fields(fields: dict[str, object]) -> None:
    width = max(map(len, fields))
    for name, value in fields.items():
        if value is not None:
            sys.stdout.write(f"{name:<{width}}  {value}\n")


def size_bytes(text: str) -> int:
    """Of ``50GiB``, ``1.5T`` or a plain number: 1 K is 1024. Raises ValueError."""
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


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
