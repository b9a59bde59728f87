"""What the routes and services of one API process share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from trtfarm.catalogue import Catalogue
from trtfarm.inspection.pool import InspectionPool
from trtfarm.ring import Bell
from trtfarm.store import ArtifactStore
from trtfarm_api.blobs import Blobs
from trtfarm_api.forecasts import Forecasts
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_api.metrics import Metrics
from trtfarm_api.settings import ServerSettings
from trtfarm_api.space import free_bytes
from trtfarm_db.engine import Database


@dataclass(frozen=True)
class Farm:
    """``require_keys``: every request must carry an API key, or ``token``, an embedded farm's one key."""

    settings: ServerSettings
    database: Database
    store: ArtifactStore
    bell: Bell
    catalogue: Catalogue
    inspection: InspectionPool
    require_keys: bool
    token: str | None = None
    maintenance: MaintenanceSettings = field(default_factory=MaintenanceSettings)
    blobs: Blobs = field(init=False)
    metrics: Metrics = field(init=False)
    forecasts: Forecasts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", Metrics(self.database))
        places = {"staging": self.settings.staging, "store": self.store.folder}
        for place, folder in places.items():
            if folder is not None:
                self.metrics.disk_free_bytes.labels(place).set_function(partial(free_bytes, folder))
        object.__setattr__(self, "blobs", Blobs(self.database, self.store, self.metrics))
        object.__setattr__(self, "forecasts", Forecasts(self.database))


async def farm_of(connection: HTTPConnection) -> Farm:
    # A coroutine: FastAPI would send a plain function to a thread, which costs more than it does.
    farm: Farm = connection.app.state.farm
    return farm


FarmDep = Annotated[Farm, Depends(farm_of)]
