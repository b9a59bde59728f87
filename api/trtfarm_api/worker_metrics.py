"""What workers tell of themselves: they have no port of their own to scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily

from trtfarm.contract.v1 import WorkerView
from trtfarm.contract.worker import Pause


def conditions(workers: Sequence[WorkerView]) -> Iterator[GaugeMetricFamily]:
    """Of workers that are alive, added up by host: ids of workers change with every start."""
    paused = GaugeMetricFamily("trtfarm_workers_paused", "Workers that claim nothing.", labels=["reason"])
    reasons = Counter(pause for worker in workers for pause in worker.condition.paused)
    for pause in Pause:
        paused.add_metric([pause.value], reasons[pause])
    waiting = GaugeMetricFamily(
        "trtfarm_spool_entries", "Finished jobs that a worker could not hand in yet.", labels=["hostname"]
    )
    waiting_bytes = GaugeMetricFamily("trtfarm_spool_bytes", "Bytes of their files.", labels=["hostname"])
    free = GaugeMetricFamily(
        "trtfarm_scratch_free_bytes", "Space left in the scratch folder with least.", labels=["hostname"]
    )
    for host in sorted({worker.hostname for worker in workers}):
        here = [worker.condition for worker in workers if worker.hostname == host]
        waiting.add_metric([host], sum(each.spool_entries for each in here))
        waiting_bytes.add_metric([host], sum(each.spool_bytes for each in here))
        known = [each.scratch_free_bytes for each in here if each.scratch_free_bytes is not None]
        if known:
            free.add_metric([host], min(known))
    yield from (paused, waiting, waiting_bytes, free)
