"""Plans as a Triton model repository."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TypedDict, Unpack

from pydantic import ValidationError

from trtfarm.contract.campaign import CampaignView, CellState, CellView
from trtfarm.contract.digest import Digest
from trtfarm.contract.engine_io import EngineIo
from trtfarm.contract.target import Runtime
from trtfarm.contract.triton import BACKEND, CONFIG, Built, TritonModel, check_names
from trtfarm.contract.v1 import PlanView
from trtfarm.errors import LocalFileError, NotExportableError
from trtfarm.files import PathLike, followed
from trtfarm.sdk import asked
from trtfarm.sdk.answers import read
from trtfarm.sdk.calls import OnBytes, Plan, artifact, plan
from trtfarm.sdk.flow import Flow, work
from trtfarm.sdk.transfer import pull

Wanted = Plan | CellView
Models = Mapping[str, Sequence[Wanted]]
"""Name → a plan for each compute capability; or the cell of a campaign that it is to be of."""


class TritonOptions(TypedDict, total=False):
    """Of a repository.

    Attributes:
        backend: who loads the plans, by default Triton's ``tensorrt``.
        version: the folder's number, by default 1.
        on_bytes: gets the number of bytes of each step of a download.
    """

    backend: str
    version: int
    on_bytes: OnBytes | None


def triton(
    models: Models, destination: PathLike, **options: Unpack[TritonOptions]
) -> Flow[tuple[TritonModel, ...]]:
    """Writes the repository beside ``destination`` and gives it that name when it is whole and verified.

    Raises:
        NotExportableError: see ``TritonModel.of``; or a plan whose inputs and outputs are not known.
        LocalFileError: ``destination`` is there already.
    """
    target = require_new(destination)
    found = []
    for name, plans in models.items():
        built = yield from _built(plans)
        found.append(
            TritonModel.of(
                name, built, backend=options.get("backend", BACKEND), version=options.get("version", 1)
            )
        )
    check_names(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".trtfarm-") as staging:
        whole = Path(staging) / "repository"
        whole.mkdir()
        for model in found:
            for capability, view in model.plans.items():
                yield from pull(view, whole / model.file(capability), options.get("on_bytes"))
            (whole / model.name / CONFIG).write_text(model.config, encoding="utf-8")
        yield from work(lambda: whole.replace(target))
    return tuple(found)


def require_new(destination: PathLike) -> Path:
    """The folder to be made, which may be there, empty; links are followed.

    Raises:
        LocalFileError: something is there already.
    """
    target = followed(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LocalFileError(
            f"{target} is there already.", hint="Write a new folder, and let Triton's link point to it."
        )
    return target


def _built(plans: Sequence[Wanted]) -> Flow[list[Built]]:
    built = []
    for each in plans:
        view = yield from _view(each)
        described = b"" if view.io is None else (yield from artifact(view.io))
        try:
            built.append(Built(view, read(EngineIo, described)))
        except ValidationError:
            raise NotExportableError(f"The inputs and outputs of plan {view.digest} are not known.") from None
    return built


def _view(wanted: Wanted) -> Flow[PlanView]:
    if isinstance(wanted, PlanView):
        return wanted
    if isinstance(wanted, Digest):
        return (yield from plan(wanted))
    assert wanted.plan is not None  # noqa: S101 - chosen for its plan
    view = yield from plan(wanted.plan.digest)
    asked.cell(wanted, view)
    return view


@dataclass(frozen=True)
class Selection:
    """Cells of a campaign.

    Attributes:
        gpus: only these, as declared or exact; all if empty. So ``configs``.
        runtime: a flavour, or exact.
        allow_missing: leave out cells that have no plan yet. Those that TensorRT refuses always are.
    """

    gpus: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    runtime: str | None = None
    allow_missing: bool = False

    def __contains__(self, cell: CellView) -> bool:
        built_with = Runtime.parse(cell.target.runtime)
        wanted = Runtime.parse(self.runtime) if self.runtime else built_with
        return (
            (not self.gpus or not {cell.target.gpu, *cell.gpus}.isdisjoint(self.gpus))
            and (not self.configs or cell.config in self.configs)
            and wanted in {built_with, Runtime(built_with.flavour)}
        )


def chosen(campaign: CampaignView, selection: Selection) -> dict[str, list[CellView]]:
    """The cells of a campaign that have plans, by model, and by config where there are several.

    Raises:
        NotExportableError: a cell has no plan yet, or nothing is left.
    """
    wanted = [cell for cell in campaign.cells if cell in selection]
    missing = [cell for cell in wanted if cell.state.live or cell.state.hole]
    if missing and not selection.allow_missing:
        cell = missing[0]
        raise NotExportableError(
            f"{len(missing)} of {len(wanted)} cells have no plan, as {cell.name} for {cell.target.gpu}: "
            f"{cell.state}.",
            hint=f"trtfarm campaign fill {quote(campaign.name)} builds them; "
            "--allow-missing leaves them out.",
        )
    several = len({cell.config for cell in wanted}) > 1
    found: dict[str, list[CellView]] = {}
    for cell in wanted:
        if cell.plan is not None and cell.state is CellState.SUCCEEDED:
            found.setdefault(_name(cell, several=several), []).append(cell)
    if not found:
        raise NotExportableError(f"No plan of campaign {campaign.name} is among those asked for.")
    return found


def _name(cell: CellView, *, several: bool) -> str:
    return f"{cell.name}.{cell.config}" if several else cell.name
