"""The application factory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import to_thread
from fastapi import FastAPI

from trtfarm import __version__
from trtfarm.errors import DatabaseUnavailableError
from trtfarm_api import errors
from trtfarm_api.auth import Gatekeeper, KeyCache, TokenKeeper
from trtfarm_api.dispatcher import Dispatcher
from trtfarm_api.doors import Doors
from trtfarm_api.farm import Farm
from trtfarm_api.following import Followers
from trtfarm_api.maintenance.keeper import Keeper
from trtfarm_api.middleware import BodyLimit, PlainAddress, RequestTimes
from trtfarm_api.reconciler import Reconciler
from trtfarm_api.routes import (
    campaigns,
    fleet,
    gpu,
    health,
    jobs,
    models,
    names,
    orders,
    pages,
    plans,
    resolve,
    uploads,
)
from trtfarm_api.services.campaigns import CampaignService
from trtfarm_api.services.orders import OrderService
from trtfarm_api.services.resolve import ResolveService
from trtfarm_api.services.submissions import SubmissionService
from trtfarm_api.services.uploads import UploadService
from trtfarm_db.notices import Listener


def create_app(farm: Farm) -> FastAPI:
    """The farm's parts belong to the caller, who closes them after the application has ended."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        dispatcher = Dispatcher(farm)
        listener = Listener(
            farm.database, lambda job_id: loop.call_soon_threadsafe(app.state.followers.tell, job_id)
        )
        app.state.followers = Followers(told=lambda: listener.listening)
        keeper = Keeper(farm)
        reconciler = Reconciler(app.state.orders, farm.settings.order_seconds)
        dispatcher.start()
        keeper.start()
        reconciler.start()
        listener.start()
        with suppress(DatabaseUnavailableError):  # the next start will do
            await to_thread.run_sync(app.state.uploads.remove_accepted)
        yield
        await to_thread.run_sync(listener.stop)
        await to_thread.run_sync(keeper.stop)
        dispatcher.stop()
        await to_thread.run_sync(reconciler.stop)

    app = FastAPI(
        title="trtfarm",
        version=__version__,
        description="A build farm for TensorRT engines.",
        lifespan=lifespan,
        responses={"default": errors.DOCUMENTED},
        openapi_url=None,  # strangers see no more than that a farm is there: ``pages`` has it, and the docs
    )
    app.state.farm = farm
    app.state.keeper = keeper = _keeper(farm)
    app.state.submissions = SubmissionService(farm)
    app.state.campaigns = CampaignService(farm, app.state.submissions)
    app.state.orders = OrderService(farm, app.state.submissions)
    app.state.resolver = ResolveService(farm, app.state.submissions)
    app.state.uploads = UploadService(farm)
    for module in (
        uploads,
        models,
        names,
        jobs,
        campaigns,
        orders,
        plans,
        resolve,
        gpu,
        fleet,
        health,
        pages,
    ):
        app.include_router(module.router)
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(PlainAddress)
    app.add_middleware(Doors, settings=farm.settings, keeper=keeper)
    app.add_middleware(RequestTimes, metrics=farm.metrics)
    return app


def _keeper(farm: Farm) -> Gatekeeper | None:
    if farm.token is not None:
        return TokenKeeper(farm.token)
    return KeyCache(farm.database) if farm.require_keys else None
