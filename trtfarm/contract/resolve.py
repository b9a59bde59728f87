"""The best plan of a model for a machine, why it is, and how far others are from fitting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import Difference, Judgement, PlanFacts, judge
from trtfarm.contract.machine import Machine, MachineRequest, Wanted
from trtfarm.contract.names import ModelReference
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.target import Target
from trtfarm.contract.v1 import PlanView, SubmissionView
from trtfarm.contract.value import Value

MAX_CONSIDERED = 20


class Choice(StrEnum):
    """Why this one of several that fit."""

    ONLY = "only"
    CLOSEST = "closest"
    FASTEST = "fastest"
    NEWEST = "newest"


class ResolveRequest(Value):
    """Which plan of ``model`` fits this machine?

    Attributes:
        config: constraints: fields that are given must be so in the plan (null: TensorRT's default).
        profiles: the plan must have exactly these; None for any.
        build: on a miss, submit the build with ``config`` and ``profiles``.
        wait_for_worker: queue that build even if no worker serves the machine's target yet.
    """

    model: ModelReference
    machine: MachineRequest
    config: BuilderConfig = Field(default_factory=BuilderConfig)
    profiles: tuple[OptimizationProfile, ...] | None = None
    build: bool = False
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    wait_for_worker: bool = False

    @property
    def wanted(self) -> Wanted:
        asked = self.config.model_dump(mode="json", include=self.config.model_fields_set)
        profiles = self.profiles and tuple(each.model_dump(mode="json") for each in self.profiles)
        return Wanted(asked, profiles)


class Considered(Value):
    """A plan that was not chosen. ``differences`` is empty for one that fits as well.

    ``distance``: 0 fits; else the less, the nearer.
    """

    digest: Digest
    job_id: str
    target: Target
    created_at: AwareDatetime
    differences: tuple[Difference, ...]
    distance: int
    message: str


class ResolveView(Value):
    """``plan`` is None on a miss; then ``considered`` begins with the nearest.

    Attributes:
        model: what the reference stood for when the request arrived.
        machine: as the farm understood it.
        why: sentences on the fit and the choice; on a miss, on the nearest.
        needs: what the program that loads the plan must do.
        considered: at most 20, those that fit first, then by distance.
        submission: of the build, if one was asked for and the answer is a miss.
    """

    model: Digest
    machine: Machine
    plan: PlanView | None
    choice: Choice | None
    why: tuple[str, ...]
    needs: tuple[str, ...]
    considered: tuple[Considered, ...]
    submission: SubmissionView | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """A measurement on the machine's own GPU. ``setting``: what must be equal for a comparison."""

    milliseconds: float
    setting: str


@dataclass(frozen=True, slots=True)
class Decision:
    chosen: PlanFacts | None
    choice: Choice | None
    why: tuple[str, ...]
    needs: tuple[str, ...]
    considered: tuple[Considered, ...]


def decide(
    machine: Machine,
    plans: Iterable[PlanFacts],
    wanted: Wanted | None = None,
    *,
    speeds: Mapping[Digest, Speed] | None = None,
    lost: frozenset[Digest] = frozenset(),
) -> Decision:
    """The best plan: the GPU's fit first, then the runtime's, then the fastest measured, then the newest.

    Speeds decide among equal fits only, and only where all that are measured were measured alike.
    """
    wanted, speeds = wanted or Wanted(), speeds or {}
    judged = [(plan, judge(machine, plan, wanted, lost=plan.digest in lost)) for plan in plans]
    misses = [pair for pair in judged if not pair[1].fits]
    misses.sort(key=lambda pair: pair[0].job_id, reverse=True)
    misses.sort(key=lambda pair: pair[1].distance)
    others = [_considered(plan, found, _differs(found)) for plan, found in misses[:MAX_CONSIDERED]]
    fits = [pair for pair in judged if pair[1].fits]
    if not fits:
        why = _missed(others)
        return Decision(None, None, why, (), tuple(others))
    best = min(_rank(found) for _, found in fits)
    equal = [plan for plan, found in fits if _rank(found) == best]
    measured = {plan.digest: speeds[plan.digest] for plan in equal if plan.digest in speeds}
    comparable = len({speed.setting for speed in measured.values()}) == 1
    ranks = {digest: speed.milliseconds for digest, speed in measured.items()} if comparable else {}
    fits.sort(key=lambda pair: pair[0].job_id, reverse=True)
    fits.sort(key=lambda pair: (_rank(pair[1]), ranks.get(pair[0].digest, float("inf"))))
    (plan, found), rest = fits[0], fits[1 : MAX_CONSIDERED + 1]
    choice, sentence = _choice(plan, fits, equal, ranks, measured)
    beside = [_considered(each, one, _beaten(each, one, plan, found, ranks)) for each, one in rest]
    why = (*found.reasons, *([sentence] if sentence else []))
    return Decision(plan, choice, why, found.needs, tuple((beside + others)[:MAX_CONSIDERED]))


def _rank(found: Judgement) -> tuple[int, int]:
    return found.gpu, found.runtime


def _choice(
    plan: PlanFacts,
    fits: list[tuple[PlanFacts, Judgement]],
    equal: list[PlanFacts],
    ranks: Mapping[Digest, float],
    measured: Mapping[Digest, Any],
) -> tuple[Choice, str]:
    others = len({each.digest for each, _ in fits}) - 1
    if not others:
        return Choice.ONLY, ""
    if len({each.digest for each in equal}) == 1:
        return Choice.CLOSEST, f"it fits closer than {others} other{'s' * (others > 1)}"
    if plan.digest in ranks:
        return Choice.FASTEST, f"the fastest measured on this GPU: {ranks[plan.digest]:.3f} ms"
    unlike = " (those measured were measured with different shapes or options)" if measured else ""
    return Choice.NEWEST, f"the newest of {len(equal)} that fit alike{unlike}"


def _beaten(
    plan: PlanFacts, found: Judgement, best: PlanFacts, winner: Judgement, ranks: Mapping[Digest, float]
) -> str:
    if plan.digest == best.digest:
        return "fits: an earlier build that gave the same bytes"
    if _rank(found) != _rank(winner):
        return f"fits less closely: {', '.join(found.reasons)}"
    if best.digest in ranks:
        speed = ranks.get(plan.digest)
        return (
            f"fits, but slower: {speed:.3f} ms" if speed is not None else "fits, but was never measured here"
        )
    return "fits, but is older"


def _considered(plan: PlanFacts, found: Judgement, message: str) -> Considered:
    return Considered(
        digest=plan.digest,
        job_id=plan.job_id,
        target=plan.target,
        created_at=plan.created_at,
        differences=found.differences,
        distance=found.distance,
        message=message,
    )


def _differs(found: Judgement) -> str:
    return "; ".join(each.message for each in found.differences)


def _missed(considered: list[Considered]) -> tuple[str, ...]:
    if not considered:
        return ("No plan of this model was ever built.",)
    near = considered[0]
    return (f"No plan fits. The nearest, {near.digest.short} for {near.target.gpu}: {near.message}.",)
