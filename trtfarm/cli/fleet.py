"""``trtfarm fleet``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from trtfarm.cli.output import print_json, print_table, size
from trtfarm.cli.run import exits, with_farm
from trtfarm.contract.v1 import QueueView, WorkerView
from trtfarm.sandbox import Part

_COLUMNS = (
    "host",
    "GPU",
    "runtime",
    "CUDA",
    "driver",
    "builds for",
    "busy",
    "seen",
    "state",
    "sandbox",
    "worker",
)


def fleet(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Shows the farm's workers with their GPUs, what they build for, and its queues."""
    with exits(as_json=as_json):
        view = with_farm(lambda farm: farm.fleet())
        if as_json:
            print_json(view.model_dump(mode="json"))
            return
        workers = [_worker(worker, datetime.now(UTC)) for worker in view.workers]
        print_table(_COLUMNS, workers, empty="No workers. Start one: trtfarm worker")
        if view.queues:
            print_table(
                ("queue", "queued", "running", "workers", "slots"), map(_queue, view.queues), empty=""
            )


def _worker(worker: WorkerView, now: datetime) -> tuple[object, ...]:
    device = worker.device
    return (
        worker.hostname,
        f"{device.gpu} (cc-{device.compute_capability}, {size(device.memory_bytes)})" if device else "none",
        worker.runtime,
        device.cuda if device else "",
        device.driver if device else "",
        ", ".join(worker.gpus),
        f"{worker.running}/{worker.slots}",
        _ago((now - worker.last_seen_at).total_seconds()),
        _state(worker),
        _sandbox(worker),
        worker.worker_id,
    )


def _sandbox(worker: WorkerView) -> str:
    """``full``, ``without tcp, signals``, ``off``."""
    parts = worker.condition.sandbox
    if parts is None:
        return ""
    lacking = [part for part in Part if part not in parts]
    return ("off" if not parts else f"without {', '.join(lacking)}") if lacking else "full"


def _queue(queue: QueueView) -> tuple[object, ...]:
    nobody = "none: its jobs wait" if queue.queued else "none"
    return queue.queue, queue.queued, queue.running, queue.workers or nobody, queue.slots or ""


def _ago(seconds: float) -> str:
    """``4 s ago``; clocks of two machines may differ a little."""
    seconds = max(seconds, 0.0)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _state(worker: WorkerView) -> str:
    """``ready``, ``paused (disk), 2 results wait``."""
    condition = worker.condition
    if not worker.alive:
        return "silent"
    if worker.draining:
        state = "draining"
    elif condition.paused:
        state = f"paused ({', '.join(condition.paused)})"
    else:
        state = "ready"
    waiting = condition.spool_entries
    return f"{state}, {waiting} result{'s' if waiting > 1 else ''} wait" if waiting else state
