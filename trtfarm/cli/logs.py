"""What ``serve`` and ``worker`` log, on standard error."""

from __future__ import annotations

import logging

from trtfarm.cli.output import PlainFormatter
from trtfarm.errors.discretion import discreet

_NOISY = ("alembic", "celery", "kombu", "httpx")


class DiscreetFormatter(PlainFormatter):
    """Shows no secret of the settings and no password of a URL, in tracebacks neither."""

    def __init__(self, text: str, secrets: frozenset[str]) -> None:
        super().__init__(text)
        self._secrets = sorted(secrets, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return discreet(line)


def log_to_stderr(secrets: frozenset[str]) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(DiscreetFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
