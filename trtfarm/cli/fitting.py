"""Asking for the plan that fits a machine, by default this one; and building it where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Annotated

import typer

from trtfarm.cli.follow import Follower
from trtfarm.cli.output import stderr
from trtfarm.compose.farm import Farm
from trtfarm.compose.machine import this_machine
from trtfarm.contract.machine import MachineRequest
from trtfarm.contract.names import ModelName
from trtfarm.contract.resolve import ResolveRequest, ResolveView
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.errors import NoPlanFitsError, OptionUnsupportedError
from trtfarm.sdk.calls import Reference

Gpu = Annotated[str | None, typer.Option(help="The machine's GPU; else the one found here.")]
ComputeCapability = Annotated[
    str | None, typer.Option("--compute-capability", help="As 8.9; for a GPU that the farm does not know.")
]
RuntimeOption = Annotated[
    str | None, typer.Option(help="TensorRT with its whole version; else the one found here.")
]
Driver = Annotated[str | None, typer.Option(help="Version of the GPU's driver; for the record.")]
PlatformOption = Annotated[str | None, typer.Option(help="As linux-x86_64; else this machine's.")]
Build = Annotated[bool, typer.Option("--build", help="Where no plan fits, build one and wait for it.")]
WaitForWorker = Annotated[
    bool, typer.Option("--wait-for-worker", help="With --build, even if no worker serves the target yet.")
]


@dataclass(frozen=True)
class Here:
    """Options that describe a machine, as they are given."""

    gpu: str | None
    compute_capability: str | None
    runtime: str | None
    driver: str | None
    platform: str | None

    def machine(self) -> MachineRequest:
        """Raises ConfigurationError with what to give."""
        return this_machine(
            gpu=self.gpu,
            compute_capability=self.compute_capability,
            runtime=self.runtime,
            driver=self.driver,
            platform=self.platform,
        )


def question(
    model: Reference, here: Here, trtexec: Sequence[str], *, build: bool, wait_for_worker: bool
) -> ResolveRequest:
    """Trtexec's build options are constraints on the plan."""
    options = parse_build_options(trtexec)
    if options.tool:
        raise OptionUnsupportedError(
            "Files and switches of trtexec's own are not what a plan is chosen by.",
            hint="Leave --saveEngine, --timingCacheFile and the like out; -o names the plan's file.",
        )
    asked = ResolveRequest(model=model, machine=here.machine(), config=options.config)
    more = {"profiles": options.profiles} if options.profiles else {}
    return asked.model_copy(
        update={**more, **({"build": True, "wait_for_worker": wait_for_worker} if build else {})}
    )


def ask(farm: Farm, asked: ResolveRequest, *, quiet: bool) -> ResolveView:
    """With ``build``, waits for what is built on a miss, and asks again.

    Raises:
        TrtFarmError: by kind, of a build that failed.
    """
    found = farm.resolve(asked)
    if found.plan is not None or found.submission is None:
        return found
    job = found.submission.job
    if not quiet:
        stderr.print(" ".join(found.why), markup=False)
    try:
        ended = Follower(farm, quiet=quiet).follow([job])[job.job_id]
    except KeyboardInterrupt:
        stderr.print(f"\nThe build goes on: trtfarm job watch {quote(job.job_id)}", markup=False)
        raise
    ended.raise_for_state()
    return farm.resolve(asked.model_copy(update={"build": False}))


def missed(found: ResolveView, reference: Reference) -> NoPlanFitsError:
    """What is said where no plan fits."""
    machine = found.machine
    where = f"{machine.gpu or machine.compute_capability} with {machine.runtime} on {machine.platform}"
    name = f"{reference}, " if isinstance(reference, ModelName) else ""
    return NoPlanFitsError(
        f"No plan of {name}{found.model.short} fits {where}. {' '.join(found.why[:1])}",
        hint="Add --build to build it; trtfarm plan resolve tells what was considered.",
    )
