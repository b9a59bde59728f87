"""A campaign as a matrix: a row a model, a column a target, a symbol a cell."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trtfarm.cli.output import shown, size, stderr, stdout
from trtfarm.contract.campaign import CampaignView, CellState, CellView, Coverage
from trtfarm.sdk.campaigns import Campaigns

_SYMBOLS = {
    CellState.SUCCEEDED: ("✓", "green"),
    CellState.RUNNING: ("▶", "bold cyan"),
    CellState.QUEUED: ("·", "dim"),
    CellState.FAILED: ("✗", "bold red"),
    CellState.REFUSED: ("⊘", "magenta"),
    CellState.CANCELLED: ("-", "yellow"),
    CellState.LOST: ("?", "bold red"),
    CellState.MISSING: (" ", ""),
}
_MARGIN = 4  # lines of a terminal for heads and figures
_WORDS = {
    CellState.SUCCEEDED: "built",
    CellState.FAILED: "failed",
    CellState.REFUSED: "refused",
    CellState.LOST: "plan lost",
    CellState.MISSING: "not submitted",
}


def follow(campaigns: Campaigns, campaign: CampaignView, *, quiet: bool) -> CampaignView:
    """Until nothing of it is under way: live on a terminal, a line for each cell that ends elsewhere.

    KeyboardInterrupt leaves it running.
    """
    live = not quiet and sys.stderr.isatty()
    since = time.monotonic()
    view = campaign
    if live and view.coverage.live:
        with Live(console=stderr, transient=True, auto_refresh=False) as screen:
            for view in campaigns.follow(campaign.campaign_id):
                seconds = time.monotonic() - since
                screen.update(
                    Group(matrix(view.cells, rows=stderr.height - _MARGIN), Text(progress(view, seconds))),
                    refresh=True,
                )
        return view
    shown = {cell.build_key for cell in view.cells if not cell.state.live}
    for view in campaigns.follow(campaign.campaign_id) if campaign.coverage.live else ():
        for cell in view.cells:
            if not cell.state.live and cell.build_key not in shown:
                shown.add(cell.build_key)
                if not quiet:
                    stderr.print(line(cell), markup=False)
    return view


def print_matrix(view: CampaignView) -> None:
    """To standard output, with what each symbol means, and the errors beside it."""
    console = stdout()
    console.print(matrix(view.cells))
    here = dict.fromkeys(cell.state for cell in view.cells)
    legend = [f"{_SYMBOLS[state][0]} {_WORDS.get(state, state.value)}" for state in _SYMBOLS if state in here]
    console.print(f"{'   '.join(legend)}", markup=False)
    for text in errors(view.cells):
        console.print(text, markup=False)


def matrix(cells: Iterable[CellView], *, rows: int | None = None) -> Table:
    """Models (and configs, if there are several) by targets; of more than ``rows``, those at work."""
    listed = list(cells)
    if rows is not None and len({(cell.name, cell.config) for cell in listed}) > rows:
        listed = _busiest(listed, max(rows, 1))
    several = len({cell.config for cell in listed}) > 1
    runtimes = len({cell.target.runtime for cell in listed}) > 1
    columns = list(dict.fromkeys((cell.target.gpu, cell.target.runtime) for cell in listed))
    states: dict[tuple[str, str], dict[tuple[str, str], CellState]] = defaultdict(dict)
    for cell in listed:
        states[cell.name, cell.config][cell.target.gpu, cell.target.runtime] = cell.state
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    if several:
        table.add_column("config", no_wrap=True)
    for gpu, runtime in columns:
        table.add_column(shown(f"{gpu}\n{runtime.removeprefix('tensorrt-')}" if runtimes else gpu))
    for (name, config), own in states.items():
        symbols = [Text(*_SYMBOLS[own[column]]) if column in own else Text() for column in columns]
        table.add_row(shown(name), *([shown(config)] if several else []), *symbols)
    return table


def _busiest(cells: list[CellView], rows: int) -> list[CellView]:
    """Cells of the rows that run, then of those that wait, in the order declared."""
    rank = {CellState.RUNNING: 0, CellState.QUEUED: 1}
    best: dict[tuple[str, str], int] = {}
    for cell in cells:
        own = best.setdefault((cell.name, cell.config), len(rank))
        best[cell.name, cell.config] = min(own, rank.get(cell.state, len(rank)))
    kept = set(sorted(best, key=lambda row: best[row])[:rows])
    return [cell for cell in cells if (cell.name, cell.config) in kept]


def progress(view: CampaignView, seconds: float) -> str:
    """``41/54 built, 2 running, 4 queued, 7 refused, 12 s``."""
    return f"{counts(view.coverage, view.cells)}, {seconds:.0f} s"


def counts(coverage: Coverage, cells: Iterable[CellView] = ()) -> str:
    states = [cell.state for cell in cells]
    parts = [f"{coverage.covered}/{coverage.wanted} built"]
    others = [state for state in _SYMBOLS if state is not CellState.SUCCEEDED and state in states]
    parts += [f"{states.count(state)} {_WORDS.get(state, state.value)}" for state in others]
    return ", ".join(parts)


def errors(cells: Iterable[CellView]) -> list[str]:
    """Each error once, with the cells that have it."""
    found: dict[tuple[str, str, str | None], list[str]] = defaultdict(list)
    for cell in cells:
        if cell.error is not None and cell.state in {CellState.FAILED, CellState.REFUSED}:
            found[cell.error.code, cell.error.message, cell.error.hint].append(where(cell))
    return [
        f"{', '.join(places)}: [{code}] {message}" + (f"\n  {hint}" if hint else "")
        for (code, message, hint), places in found.items()
    ]


def where(cell: CellView) -> str:
    config = "" if cell.config == "default" else f" {cell.config}"
    return f"{cell.name}{config} on {cell.target.gpu}"


def line(cell: CellView) -> str:
    """How a cell ended, in one line."""
    head = f"{where(cell)}  {cell.target.runtime}"
    if cell.state is CellState.SUCCEEDED and cell.plan is not None:
        return f"{head}  {cell.build_seconds or 0:.1f} s  {size(cell.plan.size_bytes)}  {cell.plan.digest}"
    if cell.error is not None:
        return f"{head}  {_WORDS.get(cell.state, cell.state.value)} [{cell.error.code}] {cell.error.message}"
    return f"{head}  {_WORDS.get(cell.state, cell.state.value)}"
