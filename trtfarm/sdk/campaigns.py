"""Calls about campaigns, as ``campaigns`` of both clients."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Unpack

from trtfarm.contract.campaign import CampaignPage, CampaignRequest, CampaignView, CancelView, CoverageView
from trtfarm.contract.triton import TritonModel
from trtfarm.errors import UnavailableError
from trtfarm.files import PathLike
from trtfarm.sdk import asked, export
from trtfarm.sdk.away import Away
from trtfarm.sdk.calls import Reference, view
from trtfarm.sdk.export import Selection, TritonOptions, chosen
from trtfarm.sdk.flow import Emit, Flow, Stream, pause
from trtfarm.sdk.running import AsyncRunner, Runner

_POLL_SECONDS = 0.5
_SHARE = 10  # of the time, at most one part goes into asking


def submit(request: CampaignRequest) -> Flow[CampaignView]:
    body = request.model_dump(mode="json", exclude_defaults=True)
    found = yield from view(CampaignView, "POST", "/v1/campaigns", json=body)
    asked.same("campaign", request.identity, found.name)
    asked.campaign(request.models, found)
    return found


def get(campaign: str, *, check: bool = False) -> Flow[CampaignView]:
    return _one(campaign, "GET", "", check=check)


def page(*, limit: int = 50, cursor: str | None = None) -> Flow[CampaignPage]:
    params: dict[str, Any] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
    return view(CampaignPage, "GET", "/v1/campaigns", params=params)


def fill(campaign: str, *, retry_failed: bool = False) -> Flow[CampaignView]:
    return _one(campaign, "POST", "/fill", retry_failed=retry_failed)


def _one(campaign: str, method: str, verb: str, **params: bool) -> Flow[CampaignView]:
    found = yield from view(CampaignView, method, f"/v1/campaigns/{campaign}{verb}", params=params)
    asked.named("campaign", campaign, found.campaign_id, found.name)
    asked.campaign(found.models, found)
    return found


def cancel(campaign: str) -> Flow[CancelView]:
    found = yield from view(CancelView, "POST", f"/v1/campaigns/{campaign}/cancel")
    asked.named("campaign", campaign, found.campaign.campaign_id, found.campaign.name)
    return found


def coverage(
    *, campaign: str | None = None, model: Reference | None = None, check: bool = False
) -> Flow[CoverageView]:
    given = {"campaign": campaign, "model": model}
    params = {"check": check} | {name: value for name, value in given.items() if value is not None}
    return view(CoverageView, "GET", "/v1/coverage", params=params)


def follow(campaign: str) -> Stream[CampaignView, CampaignView]:
    """The campaign every half second or more rarely, until nothing of it is under way."""
    away = Away()
    while True:
        asked = time.monotonic()
        try:
            seen = yield from get(campaign)
        except UnavailableError as error:
            yield from away.bear(error)
            continue
        away.over()
        yield Emit(seen)
        if not seen.coverage.live:
            return seen
        yield from pause(max(_POLL_SECONDS, _SHARE * (time.monotonic() - asked)))


def export_triton(
    campaign: str, destination: PathLike, selection: Selection, **options: Unpack[TritonOptions]
) -> Flow[tuple[TritonModel, ...]]:
    export.require_new(destination)
    view = yield from get(campaign, check=True)
    return (yield from export.triton(chosen(view, selection), destination, **options))


class Campaigns:
    """Each call may be repeated: a campaign that is declared again builds only what is missing.

    A campaign is named by its id or name.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._run = runner.run

    def submit(self, request: CampaignRequest) -> CampaignView:
        return self._run(submit(request))

    def get(self, campaign: str, *, check: bool = False) -> CampaignView:
        """``check`` looks for every plan's bytes in the store."""
        return self._run(get(campaign, check=check))

    def page(self, *, limit: int = 50, cursor: str | None = None) -> CampaignPage:
        """Newest first, without their cells."""
        return self._run(page(limit=limit, cursor=cursor))

    def fill(self, campaign: str, *, retry_failed: bool = False) -> CampaignView:
        """Submits what has no plan and is not under way; with ``retry_failed`` what was refused, too."""
        return self._run(fill(campaign, retry_failed=retry_failed))

    def cancel(self, campaign: str) -> CancelView:
        """Ends its jobs, but for those that others have submitted as well."""
        return self._run(cancel(campaign))

    def coverage(
        self, *, campaign: str | None = None, model: Reference | None = None, check: bool = False
    ) -> CoverageView:
        """Which of the wanted cells have a plan."""
        return self._run(coverage(campaign=campaign, model=model, check=check))

    def follow(self, campaign: str) -> Iterator[CampaignView]:
        """The campaign as it changes, until nothing of it is under way."""
        return self._runner.each(follow(campaign))

    def wait(self, campaign: str) -> CampaignView:
        """The campaign once nothing of it is under way."""
        return self._run(follow(campaign))

    def export_triton(
        self,
        campaign: str,
        destination: PathLike,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        **options: Unpack[TritonOptions],
    ) -> tuple[TritonModel, ...]:
        """A Triton model repository of its plans; see ``FarmClient.export_triton``."""
        return self._run(export_triton(campaign, destination, selection, **options))


class AsyncCampaigns:
    """The methods of ``Campaigns``, for event loops."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner
        self._run = runner.run

    async def submit(self, request: CampaignRequest) -> CampaignView:
        return await self._run(submit(request))

    async def get(self, campaign: str, *, check: bool = False) -> CampaignView:
        return await self._run(get(campaign, check=check))

    async def page(self, *, limit: int = 50, cursor: str | None = None) -> CampaignPage:
        return await self._run(page(limit=limit, cursor=cursor))

    async def fill(self, campaign: str, *, retry_failed: bool = False) -> CampaignView:
        return await self._run(fill(campaign, retry_failed=retry_failed))

    async def cancel(self, campaign: str) -> CancelView:
        return await self._run(cancel(campaign))

    async def coverage(
        self, *, campaign: str | None = None, model: Reference | None = None, check: bool = False
    ) -> CoverageView:
        return await self._run(coverage(campaign=campaign, model=model, check=check))

    def follow(self, campaign: str) -> AsyncIterator[CampaignView]:
        return self._runner.each(follow(campaign))

    async def wait(self, campaign: str) -> CampaignView:
        return await self._run(follow(campaign))

    async def export_triton(
        self,
        campaign: str,
        destination: PathLike,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        **options: Unpack[TritonOptions],
    ) -> tuple[TritonModel, ...]:
        return await self._run(export_triton(campaign, destination, selection, **options))
