"""``trtfarm benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtfarm.cli.build import valid
from trtfarm.cli.build_first import BuildFirst, find_plan
from trtfarm.cli.measure import measure, print_benchmark
from trtfarm.cli.output import print_json, stderr
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.cli.trtexec_command import META_KEY
from trtfarm.compose.farm import Farm
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.trtexec_values import files as parse_files
from trtfarm.contract.trtexec_values import shapes as parse_shapes
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS, JobView
from trtfarm.errors import InvalidRequestError, LocalFileError
from trtfarm.files import target_of, write

EPILOG = "Example: trtfarm benchmark resnet50.onnx --gpu h200 --fp16 --shapes=input:8x3x224x224"


def benchmark(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="PLAN_OR_MODEL",
            help="A plan: its digest, the first digits do. Or a model: an ONNX file, name:tag, digest.",
        ),
    ],
    gpu: Annotated[
        str | None, typer.Option(help="The product to measure on; for a plan, that it was built for.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Of a model's build: tensorrt or tensorrt-rtx, with a version.")
    ] = None,
    shapes: Annotated[
        str | None, typer.Option("--shapes", help="name:1x3x224x224[,…]; else the profile's optimum.")
    ] = None,
    use_profile: Annotated[int, typer.Option("--useProfile", min=0, help="Optimization profile.")] = 0,
    inf_streams: Annotated[int, typer.Option("--infStreams", min=1, help="Contexts at the same time.")] = 1,
    no_cuda_graph: Annotated[bool, typer.Option("--noCudaGraph", help="Enqueue instead.")] = False,
    transfers: Annotated[
        bool, typer.Option("--includeDataTransfers", help="Copy inputs and outputs each time.")
    ] = False,
    no_spin_wait: Annotated[bool, typer.Option("--noSpinWait", help="Sleep while waiting.")] = False,
    warm_up: Annotated[float, typer.Option("--warmUp", help="Milliseconds that do not count.")] = 200,
    duration: Annotated[float, typer.Option("--duration", help="Seconds at least.")] = 3,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Inferences at least.")] = 10,
    load_inputs: Annotated[
        str | None,
        typer.Option("--loadInputs", help="name:file[,…]: raw values in C order; other inputs are random."),
    ] = None,
    percentile: Annotated[str, typer.Option("--percentile", help="Percentiles to tell.")] = "90,95,99",
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    export_times: Annotated[
        Path | None, typer.Option("--exportTimes", help="Every sample, as trtexec writes it.")
    ] = None,
    export_profile: Annotated[
        Path | None, typer.Option("--exportProfile", help="Time by layer, as trtexec writes it.")
    ] = None,
    export_layer_info: Annotated[
        Path | None, typer.Option("--exportLayerInfo", help="The engine's layers, as trtexec writes them.")
    ] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds after which a job is given up.")] = (
        DEFAULT_TIMEOUT_SECONDS
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measures a plan on a GPU, with trtexec's metrics; a model is built first, or its plan reused.

    Defaults are those of trtexec 11.
    """
    with exits(as_json=as_json):
        options = valid(
            BenchmarkOptions,
            shapes=_shapes(shapes),
            use_profile=use_profile,
            inf_streams=inf_streams,
            cuda_graph=not no_cuda_graph,
            transfers=transfers,
            spin_wait=not no_spin_wait,
            warm_up_ms=warm_up,
            duration_seconds=duration,
            iterations=iterations,
            percentiles=_percentiles(percentile),
            seed=seed,
            layers=export_profile is not None or export_layer_info is not None,
        )
        files = _files(load_inputs)
        for path in filter(None, (export_times, export_profile, export_layer_info)):
            target_of(path)
        first = BuildFirst.read(
            context.meta[META_KEY],
            gpu=gpu,
            runtime=runtime,
            shapes=options.shapes,
            priority=priority,
            timeout=timeout,
        )

        def command(farm: Farm) -> tuple[JobView | None, JobView | None]:
            plan, built = find_plan(farm, what), None
            if plan is not None:
                first.refuse()
            else:
                built = first.build(farm, what, quiet=as_json)
                if built.plan is None:
                    return built, None
                plan = built.plan.digest
            sent = options.model_copy(update={"inputs": _upload(farm, files)})
            job = measure(farm, plan, gpu, sent, priority=priority, timeout=timeout, quiet=as_json)
            if job.benchmark is not None:
                view = job.benchmark
                _export(farm, view.times, export_times)
                _export(farm, view.layer_profile, export_profile)
                _export(farm, view.layer_information, export_layer_info)
            return built, job

        built, job = with_farm(command, builds=True)
        if as_json:
            document = job.model_dump(mode="json", exclude_none=True) if job else {}
            if built is not None:
                document["build"] = built.model_dump(mode="json", exclude_none=True)
            print_json(document)
        elif job is not None and job.benchmark is not None:
            print_benchmark(job.benchmark)
        else:
            _tell(job or built)
    if job is None or job.state is not JobState.SUCCEEDED:
        raise typer.Exit(Exit.JOB_FAILED)


def _tell(job: JobView | None) -> None:
    """Why there are no figures."""
    if job is not None and job.error is not None:
        stderr.print(f"[{job.error.code}] {job.error.message}", job.error.hint or "", markup=False)


def _export(farm: Farm, digest: Digest | None, path: Path | None) -> None:
    if digest is not None and path is not None:
        write(path, farm.artifact(digest))


def _shapes(text: str | None) -> dict[str, tuple[int, ...]]:
    try:
        return dict(parse_shapes(text)) if text else {}
    except ValueError as error:
        raise InvalidRequestError(f"--shapes: {error}") from error


def _files(text: str | None) -> dict[str, Path]:
    """Raises LocalFileError, before anything is built: a file cannot be read."""
    try:
        found = {name: Path(path) for name, path in parse_files(text).items()} if text else {}
    except ValueError as error:
        raise InvalidRequestError(f"--loadInputs: {error}", hint="Write name:file[,name:file…].") from error
    for path in found.values():
        if not path.is_file():
            raise LocalFileError(f"--loadInputs: there is no file {path}.")
    return found


def _upload(farm: Farm, files: dict[str, Path]) -> dict[str, Digest]:
    return {name: farm.upload_input(path) for name, path in files.items()}


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        raise InvalidRequestError(f"--percentile {text!r}: write numbers, as 90,95,99.") from None
