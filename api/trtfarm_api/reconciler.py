"""Keeps standing orders: submits what a moved name, a new GPU or TensorRT, or a lost plan leaves missing."""

from __future__ import annotations

import logging
import threading
import time

from trtfarm.errors import DatabaseUnavailableError
from trtfarm_api.services.orders import OrderService

_CHECK_SECONDS = 600.0  # between looks for all plans' bytes in the store
_log = logging.getLogger(__name__)


class Reconciler:
    """Every API process may run one: one at a time works, and what it does is idempotent."""

    def __init__(self, orders: OrderService, seconds: float) -> None:
        self._orders = orders
        self._seconds = seconds
        self._stopped = threading.Event()
        self._checked_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            check = time.monotonic() - self._checked_at >= _CHECK_SECONDS
            try:
                self._orders.reconcile(check=check)
            except DatabaseUnavailableError:
                _log.warning("the database does not answer")
            except Exception:  # noqa: BLE001 - without it no order would ever be kept
                _log.exception("the reconciler failed; it goes on")
            else:
                self._checked_at = time.monotonic() if check else self._checked_at
