"""Putting the farm's parts together, and taking them apart in the right order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trtfarm.compose.secrets import make_first_key
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
    token: str | None = None,
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
            token=token,
            maintenance=maintenance or MaintenanceSettings(),
        )


@contextlib.contextmanager
def distributed_farm(settings: ApiSettings) -> Iterator[Farm]:
    """The parts of ``trtfarm serve``, on PostgreSQL and Redis.

    Raises:
        ConfigurationError: the schema is not current, others could reach it without a key, or write into the
            folder of uploads, or there is no key and the file for a first one cannot be written.
        DatabaseUnavailableError: the database does not answer.
    """
    from trtfarm.ring import CeleryBell, celery_app
    from trtfarm.store import ArtifactStore
    from trtfarm_db import schema
    from trtfarm_db.engine import Database

    server = settings.server
    require_doors(server)
    with contextlib.ExitStack() as stack:
        database = Database.open(settings.database, "trtfarm-api")
        stack.callback(database.close)
        schema.require_current(database)
        private_folder(server.staging, "server.staging")
        if server.require_keys:
            make_first_key(database, server.admin_key)
        store = ArtifactStore.open(settings.store)
        bell = CeleryBell(celery_app(settings.redis.url.get_secret_value()))
        stack.callback(bell.close)
        yield stack.enter_context(
            farm(
                server,
                database,
                store,
                bell,
                require_keys=server.require_keys,
                maintenance=settings.maintenance,
                catalogue_path=settings.catalogue.path,
            )
        )


def require_doors(server: ServerSettings) -> None:
    """Raises ConfigurationError for a farm that others could reach without a key."""
    if not server.require_keys and not server.loopback:
        raise ConfigurationError(
            f"Without API keys, the farm listens on loopback only, not on {server.host}.",
            hint="Leave server.require_keys at true, or set server.host to 127.0.0.1.",
        )
