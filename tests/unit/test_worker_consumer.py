"""What the consumer of rings tells."""

from __future__ import annotations

import logging

import pytest
from kombu.message import Message

from trtfarm_worker.consumer import CalmAboutRings


class Channel:
    """Of a Redis that has gone away."""

    no_ack_consumers: frozenset[str] = frozenset()

    def basic_ack(self, tag: str, *, multiple: bool) -> None:
        raise ConnectionResetError(tag)


def test_a_ring_that_cannot_be_acknowledged_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.rings")
    calm = CalmAboutRings()
    logger.addFilter(calm)
    try:
        message = Message(body="", delivery_tag="tag", channel=Channel())
        message.ack_log_error(logger, (ConnectionResetError,))
        logger.critical("something else")
    finally:
        logger.removeFilter(calm)
    ring, other = caplog.records
    assert (ring.levelname, ring.exc_info) == ("WARNING", None)
    assert "Couldn't ack" in ring.getMessage()
    assert other.levelname == "CRITICAL"
