"""What the API does, without HTTP. The dependencies hand one instance of each to the routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from trtfarm_api.services.campaigns import CampaignService
from trtfarm_api.services.orders import OrderService
from trtfarm_api.services.resolve import ResolveService
from trtfarm_api.services.submissions import SubmissionService
from trtfarm_api.services.uploads import UploadService


async def _uploads(connection: HTTPConnection) -> UploadService:
    service: UploadService = connection.app.state.uploads
    return service


async def _submissions(connection: HTTPConnection) -> SubmissionService:
    service: SubmissionService = connection.app.state.submissions
    return service


async def _campaigns(connection: HTTPConnection) -> CampaignService:
    service: CampaignService = connection.app.state.campaigns
    return service


async def _resolver(connection: HTTPConnection) -> ResolveService:
    service: ResolveService = connection.app.state.resolver
    return service


async def _orders(connection: HTTPConnection) -> OrderService:
    service: OrderService = connection.app.state.orders
    return service


UploadsDep = Annotated[UploadService, Depends(_uploads)]
SubmissionsDep = Annotated[SubmissionService, Depends(_submissions)]
CampaignsDep = Annotated[CampaignService, Depends(_campaigns)]
ResolveDep = Annotated[ResolveService, Depends(_resolver)]
OrdersDep = Annotated[OrderService, Depends(_orders)]
