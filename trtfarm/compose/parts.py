"""Putting the farm's parts together, and taking them apart in the right order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trtfarm.errors import ConfigurationError
from trtfarm.private_folder import private_folder

if TYPE_CHECKING:
    from trtfarm.compose.settings import ApiSettings
    from trtfarm.ring import Bell
    from trtfarm.store import ArtifactStore
    from trtfarm_api.farm import Farm
    from trtfarm_api.maintenance.settings import MaintenanceSettings
    from trtfarm_api.settings import ServerSettings
    from trtfarm_db.engine import Database


@contextlib.contextmanager
def farm(
    server: ServerSettings,
    database: Database,
    store: ArtifactStore,
    bell: Bell,
    *,
    require_keys: bool = False,
    maintenance: MaintenanceSettings | None = None,
    catalogue_path: Path | None = None,
) -> Iterator[Farm]:
    """What the API needs. Closes only what it has opened itself: the inspectors."""
    from trtfarm.catalogue import Catalogue
    from trtfarm.inspection.pool import InspectionPool
    from trtfarm_api.farm import Farm
    from trtfarm_api.maintenance.settings import MaintenanceSettings

    with InspectionPool(
        processes=server.inspection_processes,
        memory_bytes=server.inspection_memory_bytes,
        timeout_seconds=server.inspection_timeout_seconds,
        sandbox=server.sandbox,
    ) as inspection:
        yield Farm(
            settings=server,
            database=database,
            store=store,
            bell=bell,
            catalogue=Catalogue.load(catalogue_path),
            inspection=inspection,
            require_keys=require_keys,
            maintenance=maintenance or MaintenanceSettings(),
        )


@contextlib.contextmanager
def distributed_farm(settings: ApiSettings) -> Iterator[Farm]:
    """The parts of ``trtfarm serve``, on PostgreSQL and Redis.

    Raises:
        ConfigurationError: the schema is not current, keys are required and there is none, or others may
            write into the folder of uploads.
        DatabaseUnavailableError: the database does not answer.
    """
    from trtfarm.ring import CeleryBell, celery_app
    from trtfarm.store import ArtifactStore
    from trtfarm_db import schema
    from trtfarm_db.engine import Database

    server = settings.server
    with contextlib.ExitStack() as stack:
        database = Database.open(settings.database, "trtfarm-api")
        stack.callback(database.close)
        schema.require_current(database)
        if server.requires_keys:
            _require_a_key(database, server.host)
        private_folder(server.staging, "server.staging")
        store = ArtifactStore.open(settings.store)
        bell = CeleryBell(celery_app(settings.redis.url.get_secret_value()))
        stack.callback(bell.close)
        yield stack.enter_context(
            farm(
                server,
                database,
                store,
                bell,
                require_keys=server.requires_keys,
                maintenance=settings.maintenance,
                catalogue_path=settings.catalogue.path,
            )
        )


def _require_a_key(database: Database, host: str) -> None:
    from trtfarm_db.repositories.keys import KeyRepository

    with database.transaction() as connection:
        if KeyRepository(connection).any_active():
            return
    raise ConfigurationError(
        f"Listening on {host} needs API keys, and there is none.",
        hint="Create one first: trtfarm key create admin --scope admin. Or listen on 127.0.0.1.",
    )
