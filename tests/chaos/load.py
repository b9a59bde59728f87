"""Clients at work: they submit, say it again, cancel, retry, download, and verify."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.behaviour import Behaviour
from tests.chaos.client import Client, History, build
from tests.chaos.plan import PlannedJob
from trtfarm.contract.digest import Digest
from trtfarm.errors import TrtFarmError

_AT_ONCE = 12  # jobs of one client
_HANG_SECONDS = 2.0


class Load:
    """``targets``: (GPU, exact runtime) by the number that planned jobs have."""

    def __init__(
        self,
        history: History,
        urls: Sequence[str],
        models: Sequence[Digest],
        targets: Sequence[tuple[str, str]],
        jobs: Sequence[PlannedJob],
        *,
        clients: int,
        seconds: float,
        patience_seconds: float,
    ) -> None:
        self._history, self._urls, self._models, self._targets = history, urls, models, targets
        self._jobs, self._clients, self._patience = jobs, clients, patience_seconds
        self._pace = seconds / max(1, len(jobs))
        self._next = 0
        self._lock = threading.Lock()
        self.done = 0

    def run(self) -> None:
        self._began_at = time.monotonic()
        with ThreadPoolExecutor(self._clients) as pool:
            for each in [pool.submit(self._work, number) for number in range(self._clients)]:
                each.result()

    def _take(self) -> list[PlannedJob]:
        """The next jobs that are due; empty when there are no more."""
        with self._lock:
            first = self._next
            self._next = min(len(self._jobs), first + _AT_ONCE)
            taken = list(self._jobs[first : self._next])
        if taken:
            due = self._began_at + taken[-1].number * self._pace
            time.sleep(max(0.0, due - time.monotonic()))
        return taken

    def _work(self, number: int) -> None:
        url = self._urls[number % len(self._urls)]
        with Client(url, self._history, self._patience) as client, tempfile.TemporaryDirectory() as folder:
            while jobs := self._take():
                try:
                    self._batch(client, jobs, Path(folder) / "plan")
                except TrtFarmError as error:
                    self._history.violations.append(f"a client was told {error.code}: {error.message}")
                except Exception as error:  # a client that ends would make the run look better than it was
                    self._history.violations.append(f"a client failed: {error!r}")
                with self._lock:
                    self.done += len(jobs)

    def _batch(self, client: Client, jobs: Sequence[PlannedJob], plan: Path) -> None:
        submitted = [(job, self._submit(client, job, f"job-{job.number}")) for job in jobs]
        for job, job_id in submitted:
            if job.cancel_after is not None:
                time.sleep(job.cancel_after)
                client.cancel(job_id)
        for job, job_id in submitted:
            ended = client.wait(job_id)
            if job.again:
                self._submit(client, job, f"job-{job.number}")
            if ended is None:
                continue
            if ended.plan is not None:
                client.download(ended.plan.digest, plan)
                if job.twin:
                    self._submit(client, job, f"twin-{job.number}")
            elif job.retry:
                client.wait(client.retry(job_id).job.job_id)

    def _submit(self, client: Client, job: PlannedJob, key: str) -> str:
        gpu, runtime = self._targets[job.gpu % len(self._targets)]
        request = build(
            self._models[job.number % len(self._models)],
            gpu,
            job.number,
            job.behaviour,
            seconds=job.seconds,
            timing_cache=job.timing_cache,
            timeout_seconds=_HANG_SECONDS if job.behaviour is Behaviour.HANG else 120,
            runtime=runtime,
            priority=job.priority,
        )
        return client.submit(key, request, job.behaviour).job.job_id
