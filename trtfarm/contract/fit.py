"""Does a plan fit a machine? NVIDIA's rules of plan portability, as a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any

from trtfarm.contract.digest import Digest
from trtfarm.contract.machine import Machine, Wanted
from trtfarm.contract.target import RTX, Runtime, Target
from trtfarm.contract.value import Value

_AMPERE = (8, 0)
_FIRST_VERSION_COMPATIBLE = (8, 6)
_NEXT_MAJOR = {8: 10, 10: 11}  # the two steps across major versions that TensorRT supports
_HOST_CODE = "Set runtime.engine_host_code_allowed = True: the plan carries its own lean runtime."

# How far off, for ordering what does not fit: the more there is to change, the farther.
_PLATFORM, _FLAVOUR, _CAPABILITY, _GPU, _SLICE = 100, 60, 40, 20, 15
_MAJOR, _MINOR, _PATCH, _BUILD, _CONFIG, _BYTES = 12, 6, 3, 2, 2, 1


class GpuFit(IntEnum):
    """Best first."""

    EXACT = 0
    CAPABILITY = 1
    HARDWARE_COMPATIBLE = 2


class RuntimeFit(IntEnum):
    """Best first."""

    EXACT = 0
    VERSION_COMPATIBLE = 1


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What decides where a plan runs. ``config`` and ``profiles`` in canonical form, as JSON."""

    digest: Digest
    job_id: str
    target: Target
    config: Mapping[str, Any]
    profiles: list[Any]
    created_at: datetime


class Difference(Value):
    """One thing in which a plan and a machine do not go together.

    ``distance``: how far apart, on one scale for all fields; for ordering only.
    """

    field: str
    plan: str
    machine: str
    message: str
    distance: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """A plan fits when there are no differences; then ``gpu`` and ``runtime`` say how well."""

    differences: tuple[Difference, ...] = ()
    gpu: GpuFit = GpuFit.EXACT
    runtime: RuntimeFit = RuntimeFit.EXACT
    reasons: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.differences

    @property
    def distance(self) -> int:
        return sum(each.distance for each in self.differences)


def judge(machine: Machine, plan: PlanFacts, wanted: Wanted, *, lost: bool = False) -> Judgement:
    """Whether the plan runs there; where NVIDIA promises nothing, it does not.

    ``lost``: the farm no longer has the plan's bytes.
    """
    gpu, runtime = _gpu(machine, plan), _runtime(machine, plan)
    found = [each for each in (_platform(machine, plan), gpu, runtime) if isinstance(each, Difference)]
    found += _config(plan, wanted)
    if lost:
        message = "the farm has lost its bytes; building it again brings them back"
        found.append(Difference(field="bytes", plan="lost", machine="", message=message, distance=_BYTES))
    if found or isinstance(gpu, Difference) or isinstance(runtime, Difference):
        return Judgement(differences=tuple(found))
    needs = (_HOST_CODE,) if runtime[0] is RuntimeFit.VERSION_COMPATIBLE else ()
    return Judgement((), gpu[0], runtime[0], (gpu[1], runtime[1]), needs)


def _platform(machine: Machine, plan: PlanFacts) -> Difference | None:
    mine, theirs = machine.platform, plan.target.platform
    return None if mine == theirs else _difference("platform", theirs, mine, _PLATFORM)


def _gpu(machine: Machine, plan: PlanFacts) -> tuple[GpuFit, str] | Difference:
    target, capability = plan.target, machine.compute_capability
    if target.gpu.startswith("cc-"):
        if target.compute_capability == capability:
            return GpuFit.CAPABILITY, f"built for any GPU of compute capability {capability}, as yours"
        message = f"built for compute capability {target.compute_capability}, you have {capability}"
        return _difference("compute_capability", target.compute_capability, capability, _CAPABILITY, message)
    if target.gpu == machine.gpu:
        return GpuFit.EXACT, f"built for the {machine.gpu}, as yours"
    if _slice(machine.gpu or "") or _slice(target.gpu):
        message = f"built on {_place(target.gpu)}, you have {_place(machine.gpu or 'GPU')}: "
        message += "NVIDIA promises nothing between a MIG slice and anything but the same slice"
        return _difference("gpu", target.gpu, machine.gpu or "", _SLICE, message)
    return _other_gpu(machine, plan)


def _other_gpu(machine: Machine, plan: PlanFacts) -> tuple[GpuFit, str] | Difference:
    """Of another product: what the hardware compatibility level says."""
    target, capability = plan.target, machine.compute_capability
    level = plan.config.get("hardware_compatibility_level") or "none"
    same = target.compute_capability == capability
    if level == "ampere_plus" and _numbers(capability) >= _AMPERE:
        return GpuFit.HARDWARE_COMPATIBLE, f"built on {target.gpu} for Ampere and newer GPUs"
    if level == "same_compute_capability" and same:
        return GpuFit.HARDWARE_COMPATIBLE, f"built on {target.gpu} for every GPU of {capability}"
    if level == "ampere_plus" or not same:
        needed = "8.0 and newer" if level == "ampere_plus" else target.compute_capability
        message = f"built on {target.gpu} for compute capability {needed}, you have {capability}"
        return _difference("compute_capability", target.compute_capability, capability, _CAPABILITY, message)
    mine = f"you have {machine.gpu}" if machine.gpu else "you did not say which GPU you have"
    message = f"built on {target.gpu} without --hardwareCompatibilityLevel, {mine}"
    return _difference("gpu", target.gpu, machine.gpu or "", _GPU, message)


def _runtime(machine: Machine, plan: PlanFacts) -> tuple[RuntimeFit, str] | Difference:
    have, built = _parsed(machine.runtime), _parsed(plan.target.runtime)
    if have.flavour != built.flavour:
        return _difference("runtime", str(built), str(have), _FLAVOUR)
    mine, theirs = have.version_numbers, built.version_numbers
    if mine == theirs:
        return RuntimeFit.EXACT, f"built with {built}, as yours"
    text = f"built with {_name(built)} {built.version}, you have {have.version}"
    distance = _version_distance(mine, theirs)
    shared = min(len(mine), len(theirs))
    if mine[:shared] == theirs[:shared]:
        text += ": state the whole version, as tensorrt.__version__ has it"
    elif built.flavour == RTX:
        text += ": plans of TensorRT-RTX run with the release that built them, and no other"
    elif not plan.config.get("version_compatible"):
        text += ", and without --versionCompatible"
    elif theirs < _FIRST_VERSION_COMPATIBLE or mine < theirs:
        text += ": a version-compatible plan runs with newer versions than its own, not with older ones"
    elif mine[0] != theirs[0] and _NEXT_MAJOR.get(theirs[0]) != mine[0]:
        text += ": across major versions, TensorRT supports 8 to 10 and 10 to 11 alone"
    elif plan.config.get("exclude_lean_runtime"):
        text += f": its lean runtime was left out, and you would need that of {built.version}"
    else:
        return (
            RuntimeFit.VERSION_COMPATIBLE,
            f"built with {built.version} as version-compatible, you have {have.version}",
        )
    return _difference("runtime", built.version, have.version, distance, text)


@lru_cache(maxsize=256)
def _parsed(runtime: str) -> Runtime:
    return Runtime.parse(runtime)


def _config(plan: PlanFacts, wanted: Wanted) -> Iterator[Difference]:
    for name, value in sorted(wanted.config.items()):
        have = plan.config.get(name)
        if have != value:
            message = f"{name} is {_said(have)}, you asked for {_said(value)}"
            yield _difference(f"config.{name}", _said(have), _said(value), _CONFIG, message)
    if plan.config.get("strip_plan") and "strip_plan" not in wanted.config:
        message = "its weights are stripped: it must be refitted before it runs; ask for strip_plan to get it"
        yield _difference("config.strip_plan", "true", "not asked for", _CONFIG, message)
    if wanted.profiles is not None and plan.profiles != list(wanted.profiles):
        message = "its optimization profiles are others than you asked for"
        yield _difference("profiles", str(plan.profiles), str(list(wanted.profiles)), _CONFIG, message)


def _difference(field: str, plan: str, machine: str, distance: int, message: str | None = None) -> Difference:
    return Difference(
        field=field,
        plan=plan,
        machine=machine,
        message=message or f"built for {plan}, you have {machine}",
        distance=distance,
    )


def _slice(gpu: str) -> str:
    return gpu.partition("+mig-")[2]


def _place(gpu: str) -> str:
    return f"a slice, {gpu}" if _slice(gpu) else f"a whole {gpu}"


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def _name(runtime: Runtime) -> str:
    return "TensorRT-RTX" if runtime.flavour == RTX else "TensorRT"


def _version_distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    weights = (_MAJOR, _MINOR, _PATCH)
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return weights[place] if place < len(weights) else _BUILD
    return _BUILD


def _said(value: Any) -> str:
    return "TensorRT's default" if value is None else str(value)
