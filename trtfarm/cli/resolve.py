"""``trtfarm plan resolve``."""

from __future__ import annotations

from typing import Annotated

import typer

from trtfarm.cli.fitting import (
    Build,
    ComputeCapability,
    Driver,
    Gpu,
    Here,
    PlatformOption,
    RuntimeOption,
    WaitForWorker,
    ask,
    question,
)
from trtfarm.cli.output import print_fields, print_json, print_table, size
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.cli.trtexec_command import META_KEY
from trtfarm.contract.names import model_reference
from trtfarm.contract.resolve import ResolveView

EPILOG = "Example: trtfarm plan resolve detector:prod --gpu rtx-4090 --runtime tensorrt-rtx-1.7.1.116"


def resolve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="name:tag or the model's digest.")],
    gpu: Gpu = None,
    compute_capability: ComputeCapability = None,
    runtime: RuntimeOption = None,
    driver: Driver = None,
    platform: PlatformOption = None,
    build: Build = False,
    wait_for_worker: WaitForWorker = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Says which plan fits a machine, why, and why the others do not. Without one, the exit status is 3."""
    with exits(as_json=as_json):
        here = Here(gpu, compute_capability, runtime, driver, platform)
        asked = question(
            model_reference(model),
            here,
            context.meta[META_KEY],
            build=build,
            wait_for_worker=wait_for_worker,
        )
        found = with_farm(lambda farm: ask(farm, asked, quiet=as_json), builds=build)
        if as_json:
            print_json(found.model_dump(mode="json"))
        else:
            _print(found)
    if found.plan is None:
        raise typer.Exit(Exit.NOT_FOUND)


def _print(found: ResolveView) -> None:
    machine, plan = found.machine, found.plan
    known = (machine.gpu, f"compute capability {machine.compute_capability}", machine.runtime)
    fields: dict[str, object] = {
        "model": found.model,
        "machine": ", ".join(filter(None, (*known, machine.platform))),
        "plan": plan.digest if plan else "none fits",
    }
    if plan is not None:
        fields["built for"] = f"{plan.target.gpu}, {plan.target.runtime}, {plan.target.platform}"
        fields["config"] = plan.config.canonical() or "TensorRT's defaults"
        fields["size"] = size(plan.size_bytes)
    print_fields({**fields, "why": "; ".join(found.why), "needs": " ".join(found.needs) or None})
    if found.considered:
        rows = [
            (each.digest.short, each.target.gpu, each.target.runtime, each.message)
            for each in found.considered
        ]
        print_table(("considered", "gpu", "runtime", "why not"), rows, empty="")
