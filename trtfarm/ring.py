"""The doorbell: tells workers of a queue to look into the database. It carries no work and may get lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

LOOK_TASK = "trtfarm.look"
ENOUGH = 100  # rings in one queue
_PAUSE_SECONDS = 0.01  # between messages: a burst of submissions must not be a burst of messages
_log = logging.getLogger(__name__)


class Bell(Protocol):
    def ring(self, queue: str) -> None:
        """Returns at once and never raises."""

    def close(self) -> None: ...


class LocalBell:
    """Rings whoever listens in this process."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def ring(self, queue: str) -> None:
        del queue
        for listener in self._listeners:
            listener()

    def close(self) -> None:
        self._listeners.clear()


class CeleryBell:
    """Rings through Celery, from a thread of its own: a slow or dead Redis delays no submission.

    Rings for one queue that arrive while one is being sent, or just after it, become one: "look" said twice
    is said once. A queue that nobody reads gets no more once ``ENOUGH`` wait: jobs may wait for weeks for
    their first worker, and Redis keeps every ring.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._waiting: set[str] = set()
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ring", daemon=True)
        self._thread.start()

    def ring(self, queue: str) -> None:
        with self._condition:
            self._waiting.add(queue)
            self._condition.notify()

    def close(self) -> None:
        """Sends what is waiting, for at most two seconds."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._closed:
                    self._condition.wait()
                if not self._waiting:
                    return
                queues, self._waiting = self._waiting, set()
            for queue in queues:
                try:
                    self._send(queue)
                except Exception as error:  # noqa: BLE001 - whatever the broker does, the jobs are safe
                    _log.warning("cannot ring %s (%s); workers look by themselves", queue, error)
            time.sleep(_PAUSE_SECONDS)

    def _send(self, queue: str) -> None:
        with self._app.producer_pool.acquire(block=True) as producer:
            # With Redis, declaring a queue only looks.
            if producer.channel.queue_declare(queue).message_count < ENOUGH:
                self._app.send_task(
                    LOOK_TASK, queue=queue, producer=producer, ignore_result=True, retry=False
                )


def celery_app(redis_url: str) -> Any:
    """A Celery application for a farm whose truth is its database.

    Early acknowledgement: a lost message costs one idle poll, a redelivered one would cost nothing either,
    but Celery must not kill or repeat an hours-long task because the broker blinked.
    """
    from celery import Celery

    app = Celery("trtfarm", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_default_delivery_mode="transient",
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "global_keyprefix": "trtfarm:",
        },
    )
    return app
