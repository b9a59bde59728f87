"""``trtfarm worker``: Celery rings, the agent works."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
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
    _leave_when_asked()
    from trtfarm.ring import CeleryBell, celery_app
    from trtfarm.store import ArtifactStore
    from trtfarm_db import schema
    from trtfarm_db.engine import Database
    from trtfarm_worker.agent import Agent
    from trtfarm_worker.consumer import listen
    from trtfarm_worker.deafness import EXIT_STATUS, Ear, Watchdog

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
        try:
            info = agent.start()
            _log.info("worker %s builds for %s", agent.worker_id, ", ".join(agent.queues))
            _log.info("%s, %d slots", info.runtime, info.slots)
            deaf_seconds = settings.worker.deaf_seconds
            with Watchdog(Ear(app, agent, deaf_seconds), deaf_seconds, agent.stop) as watchdog:
                listen(app, agent)
        finally:
            _stop_at_once_when_asked_again(agent)
            _log.info("stopping; running builds have %g s", settings.worker.drain_seconds)
            agent.stop(settings.worker.drain_seconds)
        if watchdog.deaf:
            sys.exit(EXIT_STATUS)


def _leave_when_asked() -> None:
    """Until Celery's handlers are up; what has been started is stopped in order."""

    def leave(number: int, frame: FrameType | None) -> None:
        del number, frame
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)


def _stop_at_once_when_asked_again(agent: Agent) -> None:
    def again(number: int, frame: FrameType | None) -> None:
        del number, frame
        agent.release()

    signal.signal(signal.SIGTERM, again)
    signal.signal(signal.SIGINT, again)
