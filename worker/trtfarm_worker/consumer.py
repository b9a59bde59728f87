"""Celery's part of a worker: it hears the rings for the agent's queues."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

from trtfarm.ring import LOOK_TASK
from trtfarm_worker.agent import Agent


class CalmAboutRings(logging.Filter):
    """Celery is alarmed, over pages, when Redis goes away before a ring is acknowledged.

    Nothing is lost by it: the ring may be heard twice.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if "Couldn't ack" in str(record.msg):
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
            record.exc_info = record.exc_text = None
        return True


def listen(app: Any, agent: Agent) -> None:
    """Consumes the agent's queues until SIGTERM or Ctrl-C. Must run in the main thread."""
    from celery.apps.worker import Worker
    from celery.signals import setup_logging, worker_shutting_down

    from trtfarm_worker.rings import TRANSPORT

    app.conf.broker_transport = TRANSPORT

    @app.task(name=LOOK_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def look() -> None:
        agent.wake()
        agent.wait_until_free()

    def drain(**_: object) -> None:
        agent.drain()

    def leave_logging_alone(**_: object) -> None:
        """Celery sets it up, and hides what the agent tells, unless somebody else does."""

    logging.getLogger("celery.worker.request").addFilter(CalmAboutRings())
    setup_logging.connect(leave_logging_alone, weak=False)
    worker_shutting_down.connect(drain, weak=False)
    worker = Worker(
        app=app,
        hostname=f"trtfarm-{agent.worker_id}@{socket.gethostname()}",
        pool="threads",
        concurrency=1,
        queues=list(agent.queues),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel=logging.WARNING,
    )
    with contextlib.suppress(SystemExit):
        worker.start()
