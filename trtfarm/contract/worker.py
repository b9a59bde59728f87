"""How a worker is, as it tells the farm every few seconds."""

from __future__ import annotations

from enum import StrEnum

from trtfarm.contract.value import Value


class Pause(StrEnum):
    """Why a slot claims nothing although it could."""

    CRASHES = "crashes"  # jobs brought its child down, and so did a build of the worker's own
    DISK = "disk"  # its scratch folder is nearly full
    SPOOL = "spool"  # too much finished work waits to be handed in


class WorkerCondition(Value):
    """``paused``: reasons of the ``paused_slots``.

    ``spool_entries``, ``spool_bytes``: finished work of this worker that the farm does not have yet.

    ``scratch_free_bytes``: space left where it works; None if it cannot tell.

    ``sandbox``: what confines its processes that read models, as trtfarm.sandbox names it; None if unknown.
    """

    paused: tuple[Pause, ...] = ()
    paused_slots: int = 0
    spool_entries: int = 0
    spool_bytes: int = 0
    scratch_free_bytes: int | None = None
    sandbox: tuple[str, ...] | None = None
