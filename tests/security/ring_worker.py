"""A worker without a farm: the real agent and the real consumer, with a child that is none.

python -m tests.security.ring_worker REDIS_URL FOLDER

Prints its queue, and "heard" for each ring.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import SecretStr

from trtfarm.ring import LocalBell, celery_app
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db.engine import Database
from trtfarm_db.schema import upgrade
from trtfarm_db.settings import DatabaseSettings
from trtfarm_worker.agent import Agent
from trtfarm_worker.consumer import listen
from trtfarm_worker.settings import WorkerSettings


class Loud(Agent):
    def wake(self) -> None:
        super().wake()
        print("heard", flush=True)


def main(redis_url: str, folder: Path) -> None:
    logging.basicConfig(level=logging.INFO)
    url = f"sqlite:///{folder / 'farm.sqlite'}"
    database = Database.open(DatabaseSettings(url=SecretStr(url)), "trtfarm-test")
    upgrade(database)
    settings = {
        "scratch": folder / "scratch",
        "slots": 1,
        "child_module": "tests.unit.fake_tensorrt_child",
        "idle_poll_seconds": 3600,
    }
    agent = Loud(
        settings=WorkerSettings.model_validate(settings),
        database=database,
        store=ArtifactStore.open(StoreSettings(url=(folder / "artifacts").as_uri())),
        bell=LocalBell(),
    )
    agent.start()
    try:
        print(f"queue {agent.queues[0]}", flush=True)
        listen(celery_app(redis_url), agent)
    finally:
        agent.stop()
        database.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
