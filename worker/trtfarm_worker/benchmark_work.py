"""Benchmark jobs: plan → figures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.leases import BenchmarkWork as BenchmarkWorkload
from trtfarm.contract.leases import Claim
from trtfarm.errors import TargetUnavailableError
from trtfarm_worker.child.protocol import BenchmarkRequest, Built, Measured
from trtfarm_worker.finished import LOG, PLAN, Finished
from trtfarm_worker.work import Child, Watch, Workshop


class BenchmarkWork:
    def __init__(self, shop: Workshop, claim: Claim, folder: Path) -> None:
        self._shop, self._claim, self._folder = shop, claim, folder

    @contextlib.contextmanager
    def request(self, watch: Watch) -> Iterator[BenchmarkRequest]:
        work, device = self._claim.benchmark, self._shop.device
        if work is None or device is None:
            raise TargetUnavailableError("This worker has no GPU to measure on.")
        watch.stage("fetching plan")
        plan = self._folder / PLAN
        self._shop.store.fetch(work.plan, plan, work.plan_size_bytes)
        if work.options.inputs:
            watch.stage("fetching inputs")
        yield BenchmarkRequest(
            plan_path=str(plan),
            input_paths={name: str(path) for name, path in self._inputs(work)},
            device=device,
            options=work.options,
            folder=str(self._folder),
            log_path=str(self._folder / LOG),
        )

    def _inputs(self, work: BenchmarkWorkload) -> Iterator[tuple[str, Path]]:
        """Fetched under names of ours: a tensor's may be no name of a file."""
        for number, (name, digest) in enumerate(work.options.inputs.items()):
            path = self._folder / f"input{number}"
            self._shop.store.fetch(digest, path, work.input_sizes[name])
            yield name, path

    def finished(self, done: Built | Measured) -> Finished:
        assert isinstance(done, Measured)  # noqa: S101 - the answer to a benchmark request
        return Finished(claim=self._claim, done=done, device=self._shop.device, at=time.time())

    def share(self, finished: Finished, run: Child) -> Finished:
        del run
        return finished
