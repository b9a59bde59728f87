"""Campaigns and coverage."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from trtfarm.contract.campaign import (
    CampaignPage,
    CampaignRequest,
    CampaignView,
    CancelView,
    CoverageView,
)
from trtfarm.contract.jobs import Scope
from trtfarm.contract.names import ModelReference
from trtfarm_api.auth import Submitter, scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.farm import FarmDep
from trtfarm_api.paging import Cursor, Limit
from trtfarm_api.services import CampaignsDep
from trtfarm_api.services.coverage import coverage

router = APIRouter(prefix="/v1", tags=["campaigns"], route_class=DocumentRoute)
Name = Annotated[str, Path(max_length=100, description="Id or name.")]
Check = Annotated[bool, Query(description="Look for every plan's bytes in the store.")]


@router.post("/campaigns", status_code=201)
def submit_campaign(
    request: CampaignRequest, principal: Submitter, campaigns: CampaignsDep, response: Response
) -> CampaignView:
    """201: jobs were queued. 200: nothing was missing, or it is being built."""
    view = campaigns.submit(request, principal.name)
    if view.changes is not None and not view.changes.created:
        response.status_code = 200
    response.headers["Location"] = f"/v1/campaigns/{view.campaign_id}"
    return view


@router.get("/campaigns", dependencies=[scoped(Scope.READ)])
def list_campaigns(campaigns: CampaignsDep, cursor: Cursor = None, limit: Limit = 50) -> CampaignPage:
    """Newest first, without their cells."""
    return campaigns.page(before=cursor, limit=limit)


@router.get("/campaigns/{campaign}", dependencies=[scoped(Scope.READ)])
def get_campaign(campaign: Name, campaigns: CampaignsDep, check: Check = False) -> CampaignView:
    """With every cell."""
    return campaigns.get(campaign, check=check)


@router.post("/campaigns/{campaign}/fill")
def fill_campaign(
    campaign: Name,
    principal: Submitter,
    campaigns: CampaignsDep,
    retry_failed: Annotated[bool, Query(description="Also what was refused.")] = False,
) -> CampaignView:
    """Submits cells that have no plan and are not under way."""
    return campaigns.fill(campaign, principal.name, retry_failed=retry_failed)


@router.post("/campaigns/{campaign}/cancel")
def cancel_campaign(campaign: Name, principal: Submitter, campaigns: CampaignsDep) -> CancelView:
    """Ends its jobs, but for those that others have submitted as well."""
    return campaigns.cancel(campaign, principal)


@router.get("/coverage", dependencies=[scoped(Scope.READ)])
def get_coverage(
    farm: FarmDep,
    campaign: Annotated[str | None, Query(max_length=100, description="Id or name.")] = None,
    model: ModelReference | None = None,
    check: Check = False,
) -> CoverageView:
    """Which of the wanted cells have a plan, by campaign and by model."""
    return coverage(farm, campaign=campaign, model=model, check=check)
