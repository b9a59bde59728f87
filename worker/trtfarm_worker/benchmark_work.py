"""Benchmark jobs: plan → figures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.leases import BenchmarkResult, Claim
from trtfarm.errors import TargetUnavailableError
from trtfarm_worker.protocol import BenchmarkRequest, Done, Measured
from trtfarm_worker.work import Child, Effect, OnStage, Workshop


class BenchmarkWork:
    def __init__(self, shop: Workshop, claim: Claim, folder: Path, log_path: Path) -> None:
        self._shop, self._claim, self._folder, self._log_path = shop, claim, folder, log_path

    @contextlib.contextmanager
    def request(self, on_stage: OnStage) -> Iterator[BenchmarkRequest]:
        work, device = self._claim.benchmark, self._shop.device
        if work is None or device is None:
            raise TargetUnavailableError("This worker has no GPU to measure on.")
        on_stage("fetching plan")
        plan = self._folder / "plan"
        self._shop.store.fetch(work.plan, plan, work.plan_size_bytes)
        yield BenchmarkRequest(
            plan_path=str(plan),
            device=device,
            options=work.options,
            folder=str(self._folder),
            log_path=str(self._log_path),
        )

    def effect(self, done: Done, run: Child) -> Effect:
        del run
        assert isinstance(done, Measured)  # noqa: S101 - the answer to a benchmark request
        assert self._shop.device is not None  # noqa: S101 - checked for the request
        result = BenchmarkResult(
            measurement=done.measurement,
            device=self._shop.device,
            log=self._shop.publish(self._log_path),
            times=self._shop.publish_if_there(self._folder / "times.json"),
            layer_profile=self._shop.publish_if_there(self._folder / "profile.json"),
            layer_information=self._shop.publish_if_there(self._folder / "layers.json"),
        )
        return lambda leases: leases.finish_benchmark(self._claim, result)
