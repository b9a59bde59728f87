"""The best plan for a machine; on a miss, if asked, the build of one."""

from __future__ import annotations

from typing import NamedTuple

from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import PlanFacts
from trtfarm.contract.machine import Machine
from trtfarm.contract.resolve import Decision, ResolveRequest, ResolveView, Speed, decide
from trtfarm.contract.target import RTX, Runtime, capability_target
from trtfarm.contract.v1 import JobRequest, PlanView, SubmissionView, TargetRequest
from trtfarm_api.farm import Farm
from trtfarm_api.services.machines import machine_of
from trtfarm_api.services.submissions import SubmissionService
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_db.repositories.fitting import FittingRepository
from trtfarm_db.repositories.names import NameRepository


class _Facts(NamedTuple):
    model: Digest
    plans: list[PlanFacts]
    speeds: dict[Digest, Speed]


class ResolveService:
    def __init__(self, farm: Farm, submissions: SubmissionService) -> None:
        self._farm = farm
        self._submissions = submissions

    def resolve(self, request: ResolveRequest, principal: str) -> ResolveView:
        """Whatever it answers with is in the store and right, as of now.

        Raises:
            UnknownGpuError, UnknownRuntimeError, InvalidRequestError: what the machine says of itself.
            ModelNotFoundError, NameNotFoundError: the farm does not have the model.
            InvalidRequestError: by kind, of a build that was asked for.
        """
        machine = machine_of(self._farm.catalogue, request.machine)
        facts = self._facts(request, machine)
        decision, plan = self._decide(facts, machine, request)
        view = ResolveView(
            model=facts.model,
            machine=machine,
            plan=plan,
            choice=decision.choice,
            why=decision.why,
            needs=decision.needs,
            considered=decision.considered,
        )
        if plan is not None or not request.build:
            return view
        note, submission = self._build(view, request, principal)
        return view.model_copy(update={"why": (*view.why, *note), "submission": submission})

    def _facts(self, request: ResolveRequest, machine: Machine) -> _Facts:
        with self._farm.database.transaction() as connection:
            model = NameRepository(connection).digest(request.model)
            fitting = FittingRepository(connection)
            found = fitting.plans(model, machine)
            speeds = fitting.speeds(model, machine) if len(found.may_fit) > 1 else {}
            plans = found.may_fit + found.near
            if not plans:
                ModelRepository(connection).manifest(model)
        return _Facts(model, plans, speeds)

    def _decide(
        self, facts: _Facts, machine: Machine, request: ResolveRequest
    ) -> tuple[Decision, PlanView | None]:
        lost: frozenset[Digest] = frozenset()
        plans = facts.plans
        while True:
            decision = decide(machine, plans, request.wanted, speeds=facts.speeds, lost=lost)
            if decision.chosen is None:
                if plans is not facts.plans:
                    return decision, None
                plans = self._all(facts)  # among which one may be that has just been built
                continue
            # Outside of a transaction: a blob that was touched is read whole before it is trusted again.
            if self._farm.blobs.usable(decision.chosen.digest):
                return decision, self._plan(decision.chosen.job_id)
            lost |= {decision.chosen.digest}

    def _all(self, facts: _Facts) -> list[PlanFacts]:
        """On a miss, every portable plan counts: one may be nearer than those that are near by GPU or age."""
        seen = {plan.job_id for plan in facts.plans}
        with self._farm.database.transaction() as connection:
            portable = FittingRepository(connection).portable(facts.model)
        return facts.plans + [plan for plan in portable if plan.job_id not in seen]

    def _plan(self, job_id: str) -> PlanView:
        with self._farm.database.transaction() as connection:
            return FittingRepository(connection).plan(job_id)

    def _build(
        self, view: ResolveView, request: ResolveRequest, principal: str
    ) -> tuple[tuple[str, ...], SubmissionView]:
        """For exactly this machine: as was asked, or else as the nearest plan of the model was built."""
        config, profiles = request.config, request.profiles or ()
        note: tuple[str, ...] = ()
        asked = bool(request.config.model_fields_set) or request.profiles is not None
        if not asked and view.considered:
            near = self._plan(view.considered[0].job_id)
            config, profiles = near.config, near.profiles
            note = (f"Being built with the builder config and profiles of {near.digest.short}.",)
        machine = view.machine
        portable = Runtime.parse(machine.runtime).flavour == RTX or machine.gpu is None
        gpu = capability_target(machine.compute_capability) if portable else machine.gpu
        target = TargetRequest(gpu=gpu or "", runtime=machine.runtime, platform=machine.platform)
        job = JobRequest(
            model=view.model,
            target=target,
            config=config,
            profiles=profiles,
            priority=request.priority,
            wait_for_worker=request.wait_for_worker,
        )
        return note, self._submissions.submit(job, principal, None)
