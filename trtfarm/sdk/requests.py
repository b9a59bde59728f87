"""What people give, as what the farm takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from pydantic import ValidationError

from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobKind
from trtfarm.contract.names import ModelName
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.v1 import JobRequest, PlanView, TargetRequest
from trtfarm.errors import InvalidRequestError
from trtfarm.sdk.calls import Plan

Config = BuilderConfig | Mapping[str, Any]
Profiles = Sequence[OptimizationProfile | Mapping[str, Mapping[str, Sequence[int]]]]


class BuildOptions(TypedDict, total=False):
    """Of a build; each as in ``JobRequest``.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``, with a version if it matters.
        config: the builder config's fields; by default TensorRT's own values.
        profiles: optimization profiles, each input name → min, opt and max shape.
        priority: -100 to 100; higher goes first.
        timeout_seconds: after which the build is given up.
        wait_for_worker: accept a target that no worker serves yet.
    """

    runtime: str | None
    config: Config
    profiles: Profiles
    priority: int
    timeout_seconds: float
    wait_for_worker: bool


def build(model: Digest | ModelName, gpu: str, options: BuildOptions) -> JobRequest:
    """Raises InvalidRequestError, which names the argument."""
    rest = {name: value for name, value in options.items() if name != "runtime"}
    try:
        return JobRequest.model_validate(
            {"model": model, "target": {"gpu": gpu, "runtime": options.get("runtime")}, **rest}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(f"{where}: {first['msg']}.") from None


def benchmark(plan: Plan, gpu: str | None, options: BenchmarkOptions | None) -> JobRequest:
    return JobRequest(
        kind=JobKind.BENCHMARK,
        plan=plan.digest if isinstance(plan, PlanView) else plan,
        target=TargetRequest(gpu=gpu) if gpu else None,
        benchmark=options or BenchmarkOptions(),
    )
