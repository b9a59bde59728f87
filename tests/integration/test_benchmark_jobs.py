"""Benchmark jobs in the database: one result each, never reused, one at a time on a GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests import values
from tests.integration.farm import WORKER, Farm
from tests.integration.test_worker_attempt import Shop
from trtfarm.contract.benchmark import BenchmarkOptions, Measurement, Metric, Usage
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobKind, JobState
from trtfarm.contract.leases import BenchmarkResult, BenchmarkWork, Claim
from trtfarm.errors import GpuBusyError, StaleFenceError
from trtfarm_db.base import db_now
from trtfarm_db.repositories.benchmarks import BenchmarkRepository
from trtfarm_db.repositories.jobs import NewJob
from trtfarm_worker.benchmark_work import BenchmarkWork as Benchmark

PLAN = values.result().plan
DEVICE = Device(
    name="NVIDIA L4",
    gpu="l4",
    uuid="GPU-1",
    compute_capability="8.9",
    multiprocessors=58,
    memory_bytes=24 << 30,
    driver="580.1",
    cuda="13.0",
)


def submit(farm: Farm, seed: int = 0, gpu: str = "l4") -> str:
    work = BenchmarkWork(
        plan=PLAN.digest, plan_size_bytes=PLAN.size_bytes, options=BenchmarkOptions(seed=seed)
    )
    with farm.jobs() as jobs:
        job = jobs.create(NewJob(values.spec(0), 0, 60.0, benchmark=work, gpu=gpu))
    assert job is not None
    assert job.kind is JobKind.BENCHMARK
    return job.job_id


def queue(gpu: str = "l4") -> str:
    return f"{values.spec(0).target.runtime}.{gpu}"


def claim(farm: Farm, gpu_uuid: str | None = "GPU-1") -> Claim | None:
    with farm.leases() as leases:
        return leases.claim([queue()], WORKER, gpu_uuid)


def measured() -> BenchmarkResult:
    metric = Metric.of([1.0, 2.0], (99,))
    measurement = Measurement(
        samples=2,
        throughput_qps=500,
        host_walltime_seconds=0.004,
        total_gpu_compute_seconds=0.003,
        latency=metric,
        enqueue=metric,
        h2d=metric,
        gpu_compute=metric,
        d2h=metric,
        device_memory_bytes=1,
        host_memory_bytes=1,
        usage=Usage(),
        shapes={"x": (1, 3)},
    )
    return BenchmarkResult(
        measurement=measurement,
        device=DEVICE,
        log=None,
        times=None,
        layer_profile=None,
        layer_information=None,
    )


def test_a_benchmark_waits_for_a_worker_on_its_gpu(farm: Farm) -> None:
    submit(farm)
    assert farm.claim() is None  # a worker that builds for the plan's target, without that GPU
    found = claim(farm)
    assert found is not None
    assert found.benchmark is not None
    assert found.benchmark.plan == PLAN.digest


def test_it_ends_with_its_measurement(farm: Farm) -> None:
    job_id = submit(farm)
    found = claim(farm)
    assert found is not None
    with farm.leases() as leases:
        leases.finish_benchmark(found, measured())
    with farm.jobs() as jobs:
        job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED
    assert job.plan is None
    assert job.benchmark is not None
    assert job.benchmark.measurement == measured().measurement
    with farm.database.transaction() as connection:
        benchmarks = BenchmarkRepository(connection)
        assert [each.job_id for each in benchmarks.page(plan=PLAN.digest)] == [job_id]
        assert benchmarks.page(gpus=["h200"]) == []


def test_a_second_result_is_refused(farm: Farm) -> None:
    submit(farm)
    found = claim(farm)
    assert found is not None
    with farm.leases() as leases:
        leases.finish_benchmark(found, measured())
    with pytest.raises(StaleFenceError), farm.leases() as leases:
        leases.finish_benchmark(found, measured())


def test_equal_ones_in_flight_are_one_job_and_different_ones_are_not(farm: Farm) -> None:
    submit(farm)
    with farm.jobs() as jobs:
        work = BenchmarkWork(
            plan=PLAN.digest, plan_size_bytes=PLAN.size_bytes, options=BenchmarkOptions(seed=0)
        )
        assert jobs.create(NewJob(values.spec(0), 0, 60.0, benchmark=work, gpu="l4")) is None
    submit(farm, seed=1)


def test_a_gpu_runs_one_job_at_a_time(farm: Farm) -> None:
    submit(farm)
    submit(farm, seed=1)
    assert claim(farm) is not None
    with pytest.raises(GpuBusyError):
        claim(farm)
    assert claim(farm, "GPU-2") is not None


def test_a_lease_that_ran_out_is_not_renewed_on_a_gpu_that_has_another_job_since(farm: Farm) -> None:
    submit(farm)
    submit(farm, seed=1)
    first = claim(farm)
    assert first is not None
    farm.lose(first)
    farm.change(first.job_id, available_at=db_now(3600))
    second = claim(farm)
    assert second is not None
    assert second.job_id != first.job_id
    with pytest.raises(GpuBusyError), farm.leases() as leases:
        leases.renew(first, WORKER, None, "GPU-1")
    with farm.leases() as leases:  # finished work needs no GPU any more
        leases.renew(first, WORKER, None, None)
    assert farm.state(first.job_id) is farm.state(second.job_id) is JobState.RUNNING


class Stages:
    """What an attempt tells meanwhile; nothing stops it."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def check(self) -> None:
        """Nothing."""


def test_the_worker_fetches_inputs_from_files(farm: Farm, tmp_path: Path) -> None:
    shop, contents = Shop(farm, tmp_path), {"x": b"12345678", "a/b": b"ids"}
    digests = {name: shop.store.put_bytes(data)[0] for name, data in contents.items()}
    plan, stored = shop.store.put_bytes(b"plan")
    work = BenchmarkWork(
        plan=plan,
        plan_size_bytes=stored.size_bytes,
        options=BenchmarkOptions(inputs=digests),
        input_sizes={name: len(data) for name, data in contents.items()},
    )
    claim = Claim(
        job_id="1", kind=JobKind.BENCHMARK, fence=1, attempt=1, spec=values.spec(0), benchmark=work,
        timeout_seconds=60,
    )  # fmt: skip
    workshop, folder = dataclasses.replace(shop.workshop, device=DEVICE), tmp_path / "attempt"
    folder.mkdir()
    watch = Stages()
    with Benchmark(workshop, claim, folder).request(watch) as request:
        read = {name: Path(path).read_bytes() for name, path in request.input_paths.items()}
    assert read == contents
    assert {Path(path).parent for path in request.input_paths.values()} == {folder}
    assert watch.stages == ["fetching plan", "fetching inputs"]


def test_other_inputs_are_another_job(farm: Farm) -> None:
    ids = set()
    for data in (b"1", b"2"):
        work = BenchmarkWork(
            plan=PLAN.digest,
            plan_size_bytes=PLAN.size_bytes,
            options=BenchmarkOptions(inputs={"x": Digest.of_bytes(data)}),
        )
        ids.add(NewJob(values.spec(0), 0, 60.0, benchmark=work, gpu="l4").key)
    assert len(ids) == 2
