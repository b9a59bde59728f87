"""``trtfarm fleet``."""

from __future__ import annotations

from typing import Annotated

import typer

from trtfarm.cli.output import print_json, print_table
from trtfarm.cli.run import exits, with_farm


def fleet(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Shows the farm's workers, what they build for, and its queues."""
    with exits(as_json=as_json):
        view = with_farm(lambda farm: farm.client.fleet())
        if as_json:
            print_json(view.model_dump(mode="json"))
            return
        workers = [
            (worker.worker_id, worker.hostname, worker.runtime, ", ".join(worker.gpus),
             f"{worker.running}/{worker.slots}", _state(alive=worker.alive, draining=worker.draining))
            for worker in view.workers
        ]  # fmt: skip
        columns = ("worker", "host", "runtime", "builds for", "busy", "state")
        print_table(columns, workers, empty="No workers. Start one: trtfarm worker")
        if view.queues:
            queues = [(queue.queue, queue.queued, queue.running) for queue in view.queues]
            print_table(("queue", "queued", "running"), queues, empty="")


def _state(*, alive: bool, draining: bool) -> str:
    if not alive:
        return "silent"
    return "draining" if draining else "ready"
