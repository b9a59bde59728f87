"""Whether an answer is one to the question.

A farm can be mistaken, and a proxy or a mirror between can lie: what a caller named is compared with what
came, and whether a plan fits a machine is judged here once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from trtfarm.catalogue import Capability, Catalogue, GpuEntry
from trtfarm.contract.campaign import CampaignModel, CampaignView, CellView
from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import PlanFacts, judge
from trtfarm.contract.jobs import JobKind
from trtfarm.contract.machine import Machine
from trtfarm.contract.resolve import ResolveRequest, ResolveView
from trtfarm.contract.target import Runtime, Target, parse_capability
from trtfarm.contract.v1 import JobRequest, JobView, PlanView, SubmissionView
from trtfarm.errors import AnswerMismatchError, UnknownGpuError

_HINT = "Nothing was kept. Whoever answers at TRTFARM_URL, or stands between, is mistaken or lies."


def same(what: str, asked: object, answered: object) -> None:
    """Raises AnswerMismatchError, which names both."""
    if asked != answered:
        raise AnswerMismatchError(
            f"The answer is not to what was asked: {what} {asked} was wanted, and {answered} came.",
            hint=_HINT,
            what=what,
            asked=str(asked),
            answered=str(answered),
        )


def among(items: Iterable[object], filters: Mapping[str, object]) -> None:
    """The rows of a list that was asked for by digests."""
    wanted = {name: filters[name] for name in ("model", "plan") if isinstance(filters.get(name), Digest)}
    for item in items:
        for name, value in wanted.items():
            same(name, value, getattr(item, name))


def job(which: str | JobView | SubmissionView, found: JobView) -> None:
    """``found`` is that job; of one that was seen before, what decides its plan is still the same."""
    known = which.job if isinstance(which, SubmissionView) else which
    same("job", known if isinstance(known, str) else known.job_id, found.job_id)
    if not isinstance(known, str):
        for name in ("kind", "model", "target", "build_key"):
            same(f"job {found.job_id} with {name}", getattr(known, name), getattr(found, name))
    if found.plan is not None and found.kind is JobKind.BUILD:
        for name in ("model", "target", "build_key"):
            same(f"a plan for {name}", getattr(found, name), getattr(found.plan, name))
    if found.benchmark is not None:
        same("a measurement by job", found.job_id, found.benchmark.job_id)
        same("a measurement of model", found.model, found.benchmark.model)


def submission(request: JobRequest, found: SubmissionView) -> None:
    """The job is one for what was submitted."""
    made = found.job
    job(made.job_id, made)
    same("a job of kind", request.kind, made.kind)
    if isinstance(request.model, Digest):
        same("a job for model", request.model, made.model)
    if request.kind is JobKind.BENCHMARK:
        measured(request.plan, made)
    else:
        same("a job with config", request.config.canonical(), made.config.canonical())
        same("a job with profiles", request.profiles, made.profiles)
    if request.target is not None:
        wanted = request.target
        same("a job for platform", wanted.platform or made.target.platform, made.target.platform)
        _gpu(wanted.gpu, made.target)
        if wanted.runtime:
            _runtime(Runtime.parse(wanted.runtime), Runtime.parse(made.target.runtime))


def named(what: str, wanted: str, its_id: str, its_name: str) -> None:
    """Something that goes by its id or by its name."""
    same(what, wanted, wanted if wanted in {its_id, its_name} else its_name)


def campaign(declared: Sequence[CampaignModel], found: CampaignView) -> None:
    """No cell is of another model than its row was declared with."""
    rows = {each.label: each.model for each in declared}
    for cell in found.cells:
        row = rows.get(cell.name)
        if row is None:
            same(f"a cell of campaign {found.name}", " or ".join(rows), cell.name)
        if isinstance(row, Digest):
            same(f"{cell.name} with model", row, cell.model)


def cell(wanted: CellView, found: PlanView) -> None:
    """The plan is the one that the cell's build has given."""
    for name in ("model", "target", "build_key"):
        same(f"a plan of {wanted.name} with {name}", getattr(wanted, name), getattr(found, name))


def measured(plan: Digest | None, found: JobView) -> None:
    """A benchmark job's figures are of that plan, once there are any."""
    if found.benchmark is not None and plan is not None:
        same("a measurement of plan", plan, found.benchmark.plan)


def resolution(question: ResolveRequest, found: ResolveView) -> None:
    """The model and the machine are those of the question, and the plan fits both."""
    if isinstance(question.model, Digest):
        same("model", question.model, found.model)
    _machine(question, found.machine)
    if found.plan is not None:
        same("a plan of model", found.model, found.plan.model)
        fitting(question, found.machine, found.plan)
    if found.submission is not None:
        built = found.submission.job
        job(built.job_id, built)
        same("a build of model", found.model, built.model)
        for name in ("compute_capability", "runtime", "platform"):
            same(f"a build for {name}", getattr(found.machine, name), getattr(built.target, name))


def fitting(question: ResolveRequest, machine: Machine, plan: PlanView) -> None:
    """Raises AnswerMismatchError: the plan does not run there, or is not what was asked for."""
    if isinstance(question.model, Digest):
        same("a plan of model", question.model, plan.model)
    _machine(question, machine)
    facts = PlanFacts(
        digest=plan.digest,
        job_id=plan.job_id,
        target=plan.target,
        config=plan.config.canonical(),
        profiles=[each.model_dump(mode="json") for each in plan.profiles],
        created_at=plan.created_at,
    )
    judged = judge(machine, facts, question.wanted)
    if not judged.fits:
        raise AnswerMismatchError(
            f"Plan {plan.digest} was answered as fitting, and it does not fit: "
            f"{'; '.join(each.message for each in judged.differences)}.",
            hint=_HINT,
            what="a plan that fits",
            asked=str(question.model),
            answered=str(plan.digest),
        )


def _machine(question: ResolveRequest, found: Machine) -> None:
    said = question.machine
    same("a plan for platform", said.platform, found.platform)
    same("a plan for runtime", Runtime.parse(said.runtime), Runtime.parse(found.runtime))
    if said.compute_capability:
        asked = parse_capability(said.compute_capability)
        same("a plan for compute capability", asked, found.compute_capability)
    if said.gpu:
        _gpu(said.gpu, found)


def _runtime(wanted: Runtime, built: Runtime) -> None:
    numbers = wanted.version_numbers
    same("a job with TensorRT", wanted.flavour, built.flavour)
    same("a job with TensorRT", numbers, built.version_numbers[: len(numbers)])


def _gpu(text: str, found: Target | Machine) -> None:
    """As far as this client's catalogue goes: a farm may know more GPUs."""
    known = _known(text)
    if known is None:
        return
    same(f"{text} with capability", known.compute_capability, found.compute_capability)
    answered = found.gpu
    if not isinstance(known, Capability) and answered is not None and not answered.startswith("cc-"):
        same("GPU", known.slug, answered)


@lru_cache(maxsize=256)
def _known(text: str) -> GpuEntry | Capability | None:
    try:
        return Catalogue.load().resolve(text)
    except UnknownGpuError:
        return None
