"""``trtfarm worker``: Celery rings, the agent works."""

from __future__ import annotations

import contextlib
import logging
import signal
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtfarm.compose.settings import WorkerFileSettings
    from trtfarm_worker.agent import Agent

_log = logging.getLogger(__name__)


def run(settings: WorkerFileSettings) -> None:
    """Works until SIGTERM or Ctrl-C: then claims nothing more and lets running builds end.

    A second signal gives running builds back to their queues.

    Raises:
        ConfigurationError: TensorRT cannot be loaded, or the schema is not current.
        DatabaseUnavailableError: the database does not answer.
    """
    from trtfarm.ring import CeleryBell, celery_app
    from trtfarm.store import ArtifactStore
    from trtfarm_db import schema
    from trtfarm_db.engine import Database
    from trtfarm_worker.agent import Agent
    from trtfarm_worker.consumer import listen

    with contextlib.ExitStack() as stack:
        database = Database.open(settings.database, "trtfarm-worker")
        stack.callback(database.close)
        schema.require_current(database)
        app = celery_app(settings.redis.url.get_secret_value())
        bell = CeleryBell(app)
        stack.callback(bell.close)
        agent = Agent(
            settings=settings.worker,
            database=database,
            store=ArtifactStore.open(settings.store),
            bell=bell,
        )
        info = agent.start()
        _log.info("worker %s builds for %s", agent.worker_id, ", ".join(agent.queues))
        _log.info("%s, %d slots", info.runtime, info.slots)
        try:
            listen(app, agent)
        finally:
            _log.info("stopping; running builds have %g s", settings.worker.drain_seconds)
            _stop_at_once_when_asked_again(agent)
            agent.stop(settings.worker.drain_seconds)


def _stop_at_once_when_asked_again(agent: Agent) -> None:
    def again(number: int, frame: FrameType | None) -> None:
        del number, frame
        agent.release()

    signal.signal(signal.SIGTERM, again)
    signal.signal(signal.SIGINT, again)
