"""A campaign as a matrix on a terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from tests import values
from trtfarm.cli.matrix import counts, errors, line, matrix
from trtfarm.contract.campaign import CellPlan, CellState, CellView, Coverage
from trtfarm.contract.target import Target
from trtfarm.contract.v1 import ErrorView

TURING = ErrorView(code="UNSUPPORTED_ON_TARGET", message="Not on Turing.", hint="Use another.")
RTX = "tensorrt-rtx-1.7.1.116"


def cell(
    name: str,
    capability: str,
    state: CellState,
    *,
    config: str = "default",
    runtime: str = RTX,
    error: ErrorView | None = None,
) -> CellView:
    built = state is CellState.SUCCEEDED
    return CellView(
        name=name,
        model=values.MODEL,
        config=config,
        target=Target(gpu=f"cc-{capability}", compute_capability=capability, runtime=runtime),
        gpus=(f"cc-{capability}",),
        state=state,
        disposition=None,
        build_key=f"{name} {capability}",
        job_id="job",
        plan=CellPlan(digest=values.MODEL, size_bytes=1 << 20) if built else None,
        build_seconds=1.25 if built else None,
        error=error,
    )


CELLS = [
    cell("resnet50", "7.5", CellState.REFUSED, error=TURING),
    cell("resnet50", "8.9", CellState.SUCCEEDED),
    cell("[red]vgg", "7.5", CellState.REFUSED, error=TURING),
    cell("[red]vgg", "8.9", CellState.QUEUED),
]


def shown(cells: list[CellView]) -> list[list[str]]:
    out = StringIO()
    Console(file=out, width=120).print(matrix(cells))
    return [row.split() for row in out.getvalue().splitlines()]


def test_a_row_a_model_and_a_column_a_target() -> None:
    assert shown(CELLS) == [
        ["model", "cc-7.5", "cc-8.9"],
        ["resnet50", "⊘", "✓"],
        ["[red]vgg", "⊘", "·"],
    ]


def test_of_many_rows_those_at_work_are_shown() -> None:
    states = [CellState.SUCCEEDED, CellState.QUEUED, CellState.SUCCEEDED, CellState.RUNNING, CellState.QUEUED]
    cells = [cell(f"m{n}", "8.9", state) for n, state in enumerate(states)]
    out = StringIO()
    Console(file=out, width=80).print(matrix(cells, rows=2))
    assert [row.split() for row in out.getvalue().splitlines()][1:] == [["m1", "·"], ["m3", "▶"]]


def test_configs_and_runtimes_are_told_where_there_are_several() -> None:
    cells = [
        cell("m", "8.9", CellState.SUCCEEDED, config="a"),
        cell("m", "8.9", CellState.FAILED, config="b", runtime="tensorrt-rtx-1.8.0"),
    ]
    assert shown(cells) == [
        ["cc-8.9", "cc-8.9"],
        ["model", "config", "rtx-1.7.1.116", "rtx-1.8.0"],
        ["m", "a", "✓"],
        ["m", "b", "✗"],
    ]


def test_every_state_has_a_symbol_of_its_own() -> None:
    symbols = [
        shown([cell("m", "8.9", state)])[1][1:] for state in CellState if state is not CellState.MISSING
    ]
    assert len({tuple(symbol) for symbol in symbols}) == len(CellState) - 1


def test_errors_are_told_once() -> None:
    assert errors(CELLS) == [
        "resnet50 on cc-7.5, [red]vgg on cc-7.5: [UNSUPPORTED_ON_TARGET] Not on Turing.\n  Use another."
    ]


def test_figures_and_lines() -> None:
    coverage = Coverage.of(each.state for each in CELLS)
    assert (coverage.live, coverage.holes, coverage.complete) == (1, 0, False)
    assert counts(coverage, CELLS) == "1/4 built, 1 queued, 2 refused"
    assert line(CELLS[1]) == f"resnet50 on cc-8.9  {RTX}  1.2 s  1.0 MiB  {values.MODEL}"
    assert line(CELLS[0]) == f"resnet50 on cc-7.5  {RTX}  refused [UNSUPPORTED_ON_TARGET] Not on Turing."
    assert line(cell("m", "8.9", CellState.CANCELLED)) == f"m on cc-8.9  {RTX}  cancelled"
