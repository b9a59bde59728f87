"""How a worker takes rings from Redis: each says "look" and nothing else, so nothing in it is read.

Whatever lies in a queue, Celery gets a ring of ours for it. Others may write to a Redis, and Celery ends, now
and at each start, over what is no message of its own: no JSON, an id that is a list, a key of another type.
"""

from __future__ import annotations

import base64
import json
import logging
import uuid
from collections.abc import Callable
from queue import Empty
from typing import Any, Final, TypeVar

from kombu.transport import redis, virtual

from trtfarm.ring import LOOK_TASK

T = TypeVar("T")
_Channel: Any = redis.Channel
_Transport: Any = redis.Transport
_QoS: Any = virtual.QoS
TRANSPORT: Final = f"{__name__}:Transport"
_BODY: Final = base64.b64encode(json.dumps([[], {}, {}]).encode()).decode()
_WRONG_TYPE: Final = "WRONGTYPE"
_log = logging.getLogger(__name__)


def ring() -> dict[str, Any]:
    """A message as ``CeleryBell`` sends it."""
    name = str(uuid.uuid4())
    return {
        "body": _BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": LOOK_TASK, "id": name, "root_id": name, "ignore_result": True},
        "properties": {
            "correlation_id": name,
            "delivery_mode": 1,
            "delivery_info": {"exchange": "", "routing_key": ""},
            "delivery_tag": name,
            "body_encoding": "base64",
        },
    }


class QoS(_QoS):  # type: ignore[misc]
    """Rings are taken once: none is noted in Redis, and none comes back from there."""

    restore_at_shutdown = False

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        del requeue
        self.ack(delivery_tag)


class Channel(_Channel):  # type: ignore[misc]
    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        """Has taken an entry from its queue, whatever becomes of it."""
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection_errors):
            raise
        except self.ResponseError as error:
            if not _is_wrong_type(error):
                raise
            for queue in self.active_queues:
                self._remove_what_is_no_queue(queue)
        except Exception as error:  # noqa: BLE001 - of an entry that cannot even be decoded
            _log.warning("an entry in Redis was no ring, and was dropped (%s)", type(error).__name__)
        raise Empty

    def _size(self, queue: str) -> int:
        size: int = self._mended(
            lambda: super(Channel, self)._size(queue), lambda: self._remove_what_is_no_queue(queue)
        )
        return size

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        self._mended(
            lambda: super(Channel, self)._queue_bind(exchange, routing_key, pattern, queue),
            lambda: self._remove_bindings(exchange),
        )

    def _mended(self, call: Callable[[], T], mend: Callable[[], None]) -> T:
        try:
            return call()
        except self.ResponseError as error:
            if not _is_wrong_type(error):
                raise
            mend()
            return call()

    def _remove_what_is_no_queue(self, queue: str) -> None:
        with self.conn_or_acquire() as client:
            for step in self.priority_steps:
                key = self._q_for_pri(queue, step)
                found = client.type(f"{self.global_keyprefix}{key}").decode()  # kombu prefixes no TYPE
                if found not in {"list", "none"}:
                    _log.warning("Redis has a %s as %s, where a list belongs: removed", found, key)
                    client.delete(key)

    def _remove_bindings(self, exchange: str) -> None:
        """They are made again at once."""
        keys = (self.keyprefix_queue % (exchange,), self.keyprefix_binding_permanent % (exchange,))
        with self.conn_or_acquire() as client:
            client.delete(*keys, self.keyprefix_binding_deadlines)
        _log.warning("Redis has something else where the bindings of %s belong: removed", exchange)


class Transport(_Transport):  # type: ignore[misc]
    Channel = Channel

    def _deliver(self, message: object, queue: str) -> None:
        del message
        super()._deliver(ring(), queue)


def _is_wrong_type(error: Exception) -> bool:
    return _WRONG_TYPE in str(error)
