"""A worker's row in the database: there while the worker is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.processes import wait_until
from trtfarm.contract.v1 import WorkerView
from trtfarm.ring import LocalBell
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db.engine import Database
from trtfarm_db.repositories.workers import WorkerRepository
from trtfarm_worker import agent as agents
from trtfarm_worker.agent import Agent
from trtfarm_worker.settings import WorkerSettings


def workers(database: Database) -> list[WorkerView]:
    with database.transaction() as connection:
        return WorkerRepository(connection).views()


def test_a_worker_that_the_farm_has_forgotten_comes_back(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after months of sleep."""
    monkeypatch.setattr(agents, "_PRESENCE_SECONDS", 0.1)
    store = ArtifactStore.open(StoreSettings(url=(tmp_path / "artifacts").as_uri()))
    settings = WorkerSettings(scratch=tmp_path / "scratch", slots=1)
    agent = Agent(settings=settings, database=database, store=store, bell=LocalBell())
    agent.start()
    try:
        (before,) = workers(database)
        with database.transaction() as connection:
            assert WorkerRepository(connection).forget(-1) == 1
        (after,) = wait_until("it is there again", lambda: workers(database))
        assert (after.worker_id, after.gpus, after.alive) == (agent.worker_id, before.gpus, True)
    finally:
        agent.stop()
