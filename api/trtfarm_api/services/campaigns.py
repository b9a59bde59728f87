"""Campaigns: declared, filled, cancelled.

A cell's build is the farm's, not the campaign's: whoever has submitted it, it is found by its key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trtfarm.contract.campaign import (
    CampaignConfig,
    CampaignModel,
    CampaignPage,
    CampaignRequest,
    CampaignSummary,
    CampaignView,
    CancelView,
    CellState,
    CellView,
    Changes,
    Coverage,
)
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Disposition
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import InvalidRequestError, TargetUnavailableError, TrtFarmError, from_code
from trtfarm_api.auth import Principal
from trtfarm_api.farm import Farm
from trtfarm_api.services.ownership import require_own
from trtfarm_api.services.submissions import SubmissionService, check_spec
from trtfarm_db.repositories.batches import BatchCaller, BatchRepository
from trtfarm_db.repositories.campaigns import CampaignRepository, CampaignRow, Wanted
from trtfarm_db.repositories.cancelling import CancelRepository
from trtfarm_db.repositories.jobs import NewJob

if TYPE_CHECKING:
    from sqlalchemy import Connection


class CampaignService:
    def __init__(self, farm: Farm, submissions: SubmissionService) -> None:
        self._farm = farm
        self._submissions = submissions

    def submit(self, request: CampaignRequest, principal: str) -> CampaignView:
        """Declares a campaign and submits what it misses, all in one transaction.

        Raises:
            ModelNotFoundError: a model was not uploaded, or nothing has that name; nothing is declared then.
            UnknownGpuError, UnknownRuntimeError, TargetUnavailableError: of a target; likewise.
            InvalidRequestError: by kind, if no cell at all can be submitted.
        """
        cells = self._cells(request)

        def declare(connection: Connection) -> str:
            return CampaignRepository(connection).declare(request, principal)

        return self._submit(declare, cells, request, principal)

    def fill(self, name: str, principal: str, *, retry_failed: bool) -> CampaignView:
        """Submits what has no plan and is not under way; with ``retry_failed`` what was refused, too."""
        with self._farm.database.transaction() as connection:
            campaigns = CampaignRepository(connection)
            row = campaigns.find(name)
            cells = campaigns.wanted(row.campaign_id)

        def resume(connection: Connection) -> str:
            CampaignRepository(connection).lock(row.campaign_id, cancelled=False)
            return row.campaign_id

        request = row.request.model_copy(update={"retry_failed": retry_failed})
        return self._submit(resume, cells, request, principal)

    def cancel(self, name: str, principal: Principal) -> CancelView:
        """Ends the campaign's jobs, but for those that others have submitted as well.

        Raises:
            NotFoundError.
            ScopeMissingError: the campaign is not theirs.
        """
        with self._farm.database.transaction() as connection:
            campaigns = CampaignRepository(connection)
            row = campaigns.find(name)
            require_own(principal, row.principal, f"campaign {row.name}")
            campaigns.lock(row.campaign_id, cancelled=True)
            cancelled = CancelRepository(connection).withdraw_all(row.campaign_id)
            answer = view(campaigns.find(row.campaign_id), campaigns.cells(row.campaign_id))
        return CancelView(
            campaign=answer,
            ended=len(cancelled.ended),
            asked=len(cancelled.asked),
            shared=len(cancelled.shared),
        )

    def get(self, name: str, *, check: bool = False) -> CampaignView:
        """``check``: look for every plan's bytes in the store."""
        with self._farm.database.transaction() as connection:
            campaigns = CampaignRepository(connection)
            row = campaigns.find(name)
            cells = campaigns.cells(row.campaign_id)
        return view(row, checked(self._farm, cells) if check else cells)

    def page(self, *, before: str | None, limit: int) -> CampaignPage:
        """Newest first."""
        with self._farm.database.transaction() as connection:
            campaigns = CampaignRepository(connection)
            rows = campaigns.page(before=before, limit=limit + 1)
            states = campaigns.states([row.campaign_id for row in rows[:limit]])
        following = rows[limit - 1].campaign_id if len(rows) > limit else None
        summaries = [_summary(row, Coverage.of(states[row.campaign_id])) for row in rows[:limit]]
        return CampaignPage(campaigns=tuple(summaries), next=following)

    def _cells(self, request: CampaignRequest) -> list[Wanted]:
        """Every model with every config for every exact target; GPUs that share a target are one cell."""
        targets = self._targets(request)
        cells = [
            self._cell(model, digest, config, target, gpus)
            for model in request.models
            for digest in (self._submissions.digest(model.model),)
            for config in request.configs
            for target, gpus in targets.items()
        ]
        refused = [cell.error for cell in cells if cell.error is not None]
        if len(refused) == len(cells):
            raise _as_error(refused[0])
        return cells

    def _cell(
        self,
        model: CampaignModel,
        digest: Digest,
        config: CampaignConfig,
        target: Target,
        gpus: Sequence[str],
    ) -> Wanted:
        spec = BuildSpec(
            model=digest, target=target, config=config.config, profiles=config.profiles or model.profiles
        )
        error = None
        try:
            check_spec(spec, self._submissions.model(digest))
        except InvalidRequestError as refusal:
            error = ErrorView(
                code=refusal.code, message=refusal.message, hint=refusal.hint, details=refusal.details
            )
        return Wanted(model.label, config.name, tuple(gpus), spec, spec.build_key, error)

    def _targets(self, request: CampaignRequest) -> dict[Target, list[str]]:
        """Exact target → what it is called in the request."""
        found: dict[Target, list[str]] = {}
        unavailable: list[TargetUnavailableError] = []
        for wanted in request.targets:
            try:
                target = self._submissions.targets.resolve(wanted, wait_for_worker=request.wait_for_worker)
            except TargetUnavailableError as error:
                unavailable.append(error)
                continue
            names = found.setdefault(target, [])
            if wanted.gpu not in names:
                names.append(wanted.gpu)
        if unavailable:
            first = unavailable[0]
            messages = [error.message for error in unavailable]
            raise TargetUnavailableError(
                " ".join(dict.fromkeys(messages)), hint=first.hint, **first.details, targets=messages
            )
        return found

    def _submit(
        self,
        enter: Callable[[Connection], str],
        cells: Sequence[Wanted],
        request: CampaignRequest,
        principal: str,
    ) -> CampaignView:
        jobs = {
            cell.build_key: NewJob(cell.spec, request.priority, request.timeout_seconds)
            for cell in cells
            if cell.error is None
        }
        distrusted = self._lost(list(jobs))  # outside of the transaction: it asks the store
        with self._farm.database.transaction() as connection:
            campaigns = CampaignRepository(connection)
            campaign_id = enter(connection)
            dispositions = BatchRepository(connection).submit(
                list(jobs.values()),
                BatchCaller(principal, campaign_id),
                distrusted=distrusted,
                retry_refused=request.retry_failed,
            )
            added, removed = campaigns.replace_cells(campaign_id, cells, dispositions)
            answer = view(campaigns.find(campaign_id), campaigns.cells(campaign_id))
        did = Counter(each for each in dispositions.values() if each is not None)
        for disposition, count in did.items():
            self._farm.metrics.submissions.labels(disposition).inc(count)
        created = {key for key, each in dispositions.items() if each is Disposition.CREATED}
        for queue in dict.fromkeys(jobs[key].queue for key in created):
            self._farm.bell.ring(queue)
        changes = Changes(
            added=added,
            removed=removed,
            created=did[Disposition.CREATED],
            joined=did[Disposition.JOINED],
            reused=did[Disposition.REUSED],
        )
        return answer.model_copy(update={"changes": changes})

    def _lost(self, keys: Sequence[str]) -> set[str]:
        """Jobs whose plans the store does not have, or not whole."""
        with self._farm.database.transaction() as connection:
            known = BatchRepository(connection).known(keys).values()
        plans = {each.job_id: each.plan.digest for each in known if each.plan is not None and not each.live}
        lost = self._farm.blobs.lost(plans.values())
        return {job_id for job_id, plan in plans.items() if plan in lost}


def checked(farm: Farm, cells: Sequence[CellView]) -> list[CellView]:
    """The cells, with those whose plan's bytes are gone from the store as lost."""
    lost = farm.blobs.lost(cell.plan.digest for cell in cells if cell.plan is not None)
    return [
        cell.model_copy(update={"state": CellState.LOST})
        if cell.state is CellState.SUCCEEDED and cell.plan is not None and cell.plan.digest in lost
        else cell
        for cell in cells
    ]


def view(row: CampaignRow, cells: Sequence[CellView]) -> CampaignView:
    request = row.request
    return CampaignView(
        campaign_id=row.campaign_id,
        name=row.name,
        priority=request.priority,
        timeout_seconds=request.timeout_seconds,
        models=request.models,
        targets=request.targets,
        configs=request.configs,
        cells=tuple(cells),
        coverage=Coverage.of(cell.state for cell in cells),
        created_at=row.created_at,
        updated_at=row.updated_at,
        cancelled_at=row.cancelled_at,
    )


def _summary(row: CampaignRow, coverage: Coverage) -> CampaignSummary:
    request = row.request
    return CampaignSummary(
        campaign_id=row.campaign_id,
        name=row.name,
        priority=request.priority,
        models=len(request.models),
        targets=len(request.targets),
        configs=len(request.configs),
        coverage=coverage,
        created_at=row.created_at,
        updated_at=row.updated_at,
        cancelled_at=row.cancelled_at,
    )


def _as_error(error: ErrorView) -> TrtFarmError:
    return from_code(error.code, error.message, error.hint, error.details)
