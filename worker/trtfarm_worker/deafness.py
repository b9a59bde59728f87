"""Watches that rings are heard: a Celery consumer may live and yet hear nothing.

A deaf worker still finds jobs, by looking for itself; they only wait longer. So it ends when it is idle, for
its supervisor to start it anew.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from trtfarm_worker.agent import Agent

_log = logging.getLogger(__name__)
_LOOKS = 4  # in the time after which a worker counts as deaf
_PATIENCE_SECONDS = 10.0  # with Celery, to end in order
EXIT_STATUS = 1


class Ear:
    """Deaf: rings have waited in Redis for ``seconds`` although this worker was idle and heard none."""

    def __init__(self, app: Any, agent: Agent, seconds: float) -> None:
        self._app = app
        self._agent = agent
        self._seconds = seconds
        self._heard = agent.rings
        self._since = time.monotonic()

    def is_deaf(self) -> bool:
        """Call it now and then. A Redis that does not answer is no deafness."""
        heard = self._agent.rings
        if heard != self._heard or not self._agent.idle or not self._waiting():
            self._heard, self._since = heard, time.monotonic()
        return time.monotonic() - self._since > self._seconds

    def _waiting(self) -> int:
        """Rings that nobody has taken yet."""
        from kombu.exceptions import OperationalError

        with self._app.connection_for_read() as connection:
            try:
                connection.ensure_connection(max_retries=1)
                with connection.channel() as channel:
                    # With Redis, declaring a queue only looks; passively, it misses the prefix of our keys.
                    return sum(channel.queue_declare(queue).message_count for queue in self._agent.queues)
            except (OperationalError, *connection.connection_errors, *connection.channel_errors):
                return 0


class Watchdog:
    """While the block runs, ends this process should it go deaf."""

    def __init__(self, ear: Ear, seconds: float, stop: Callable[[], None]) -> None:
        self._ear = ear
        self._interval = seconds / _LOOKS
        self._stop = stop
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deafness", daemon=True)
        self.deaf = False

    def __enter__(self) -> Self:
        if self._interval:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def _run(self) -> None:
        while not self._left.wait(self._interval):
            if not self._ear.is_deaf():
                continue
            _log.error("rings wait in Redis and are not heard: this worker ends, to be started anew")
            self.deaf = True
            os.kill(os.getpid(), signal.SIGTERM)
            if not self._left.wait(_PATIENCE_SECONDS):
                self._stop()
                os._exit(EXIT_STATUS)
            return
