"""Maintenance on an operator's demand: what the API does by itself, here and now."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtfarm.compose.embedded import Home, controller
from trtfarm.compose.settings import ApiSettings
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db import schema
from trtfarm_db.engine import Database
from trtfarm_db.settings import DatabaseSettings

if TYPE_CHECKING:
    from trtfarm_api.maintenance.settings import MaintenanceSettings


@dataclass(frozen=True)
class _Premises:
    """What is to be tidied."""

    database: Database
    store: ArtifactStore
    staging: Path
    settings: MaintenanceSettings


def collect_garbage(config: Path | None, *, embedded: bool, dry_run: bool) -> dict[str, Any]:
    """What was removed, or would be.

    Raises:
        ConfigurationError: the schema is not current; another process runs the embedded farm.
        UnavailableError: database or store do not answer.
    """
    from trtfarm_api.maintenance.garbage import GarbageCollector
    from trtfarm_api.maintenance.uploads import UploadSweeper

    with _premises(config, embedded=embedded) as at:
        sweeper = UploadSweeper(at.database, at.staging, at.settings)
        collector = GarbageCollector(at.database, at.store, at.settings)
        uploads = sweeper.look() if dry_run else sweeper.run()
        garbage = collector.look() if dry_run else collector.run()
    return {"dry_run": dry_run, "uploads": asdict(uploads), "store": asdict(garbage)}


def scrub(config: Path | None, *, embedded: bool, everything: bool) -> dict[str, Any]:
    """What was read, and what of it is lost. Raises as ``collect_garbage``."""
    from trtfarm_api.blobs import Blobs
    from trtfarm_api.maintenance.scrub import Scrubber
    from trtfarm_api.metrics import Metrics

    with _premises(config, embedded=embedded) as at:
        metrics = Metrics(at.database)
        blobs = Blobs(at.database, at.store, metrics)
        scrubber = Scrubber(at.database, at.store, blobs, metrics, at.settings)
        return asdict(scrubber.run(0 if everything else at.settings.scrub_seconds, threading.Event()))


@contextlib.contextmanager
def _premises(config: Path | None, *, embedded: bool) -> Iterator[_Premises]:
    settings = ApiSettings.load(config)
    with contextlib.ExitStack() as stack:
        home = Home.default()
        if embedded:
            stack.enter_context(controller(home))
            database = Database.open(
                DatabaseSettings.model_validate({"url": home.database_url}), "trtfarm-admin"
            )
            stack.callback(database.close)
            schema.upgrade(database)
            place = StoreSettings(url=home.artifacts.resolve().as_uri())
        else:
            database = Database.open(settings.database, "trtfarm-admin")
            stack.callback(database.close)
            schema.require_current(database)
            place = settings.store
        staging = home.staging if embedded else settings.server.staging
        yield _Premises(database, ArtifactStore.open(place), staging, settings.maintenance)
