"""``trtfarm campaign export`` and ``trtfarm plan export``: plans as a server of models wants them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from trtfarm.cli.digests import find_digest
from trtfarm.cli.output import print_json, print_table, size, stderr
from trtfarm.cli.run import exits, with_farm
from trtfarm.compose.farm import Farm
from trtfarm.contract.triton import BACKEND, TritonModel
from trtfarm.sdk.calls import OnBytes
from trtfarm.sdk.export import Selection


class Format(StrEnum):
    TRITON = "triton"


FormatOption = Annotated[Format, typer.Option("--format", help="triton: a Triton model repository.")]
Backend = Annotated[
    str, typer.Option(help="Who loads the plans; TensorRT-RTX's need a backend of your own, by its name.")
]
Version = Annotated[int, typer.Option(min=1, help="The folder's number, below each model.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def campaign(
    name: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's name or id.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    as_format: FormatOption = Format.TRITON,
    gpu: Annotated[list[str] | None, typer.Option(help="Only plans for this; repeat.")] = None,
    config: Annotated[list[str] | None, typer.Option(help="Only of this builder config; repeat.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Only of this runtime.")] = None,
    backend: Backend = BACKEND,
    version: Version = 1,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out cells that have no plan yet.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Writes a Triton model repository: a folder for each model, with its plans by compute capability.

    Names, types and shapes of config.pbtxt are the engine's own. The folder appears when
    it is whole and verified.
    """
    del as_format  # the only one there is
    selection = Selection(tuple(gpu or ()), tuple(config or ()), runtime, allow_missing)
    _export(
        folder,
        lambda farm, on_bytes: farm.campaigns.export_triton(
            name, folder, selection, backend=backend, version=version, on_bytes=on_bytes
        ),
        as_json=as_json,
    )


def plan(
    plans: Annotated[list[str], typer.Argument(metavar="PLAN...", help="Digests; their first digits do.")],
    folder: Annotated[Path, typer.Option("-o", "--output", help="A folder that is not there yet.")],
    name: Annotated[str, typer.Option(help="What clients of the server call the model.")],
    as_format: FormatOption = Format.TRITON,
    backend: Backend = BACKEND,
    version: Version = 1,
    as_json: Json = False,
) -> None:
    """Writes a Triton model repository of one model, with a plan for each compute capability."""
    del as_format

    def export(farm: Farm, on_bytes: OnBytes) -> tuple[TritonModel, ...]:
        models = {name: [find_digest(farm, each) for each in plans]}
        return farm.export_triton(models, folder, backend=backend, version=version, on_bytes=on_bytes)

    _export(folder, export, as_json=as_json)


def _export(
    folder: Path, export: Callable[[Farm, OnBytes], tuple[TritonModel, ...]], *, as_json: bool
) -> None:
    columns = (TextColumn("exporting"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with exits(as_json=as_json):
        with Progress(*columns, console=stderr, transient=True, disable=as_json) as bar:
            task = bar.add_task("", total=None)
            models = with_farm(lambda farm: export(farm, lambda count: bar.advance(task, count)))
        files = [
            (model, capability, view, folder / model.file(capability))
            for model in models
            for capability, view in model.plans.items()
        ]
        if as_json:
            print_json(
                {
                    "path": str(folder),
                    "format": Format.TRITON,
                    "models": [
                        {"name": each.name, "max_batch_size": each.io.max_batch, "backend": each.backend}
                        for each in models
                    ],
                    "plans": [
                        {"model": model.name, "compute_capability": capability, "gpu": view.target.gpu,
                         "runtime": view.target.runtime, "digest": view.digest,
                         "size_bytes": view.size_bytes, "path": str(path)}
                        for model, capability, view, path in files
                    ],
                }
            )  # fmt: skip
            return
        rows = [
            (model.name, capability, view.target.gpu, model.io.max_batch, size(view.size_bytes), path)
            for model, capability, view, path in files
        ]
        print_table(("model", "capability", "gpu", "max batch", "size", "plan"), rows, empty="No plans.")
        stderr.print(f"Serve it: tritonserver --model-repository={folder}", markup=False)
