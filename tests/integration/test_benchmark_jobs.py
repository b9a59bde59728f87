"""Benchmark jobs in the database: one result each, never reused, one at a time on a GPU."""

from __future__ import annotations

import pytest

from tests import values
from tests.integration.farm import WORKER, Farm
from trtfarm.contract.benchmark import BenchmarkOptions, Measurement, Metric, Usage
from trtfarm.contract.device import Device
from trtfarm.contract.jobs import JobKind, JobState
from trtfarm.contract.leases import BenchmarkResult, BenchmarkWork, Claim
from trtfarm.errors import GpuBusyError, StaleFenceError
from trtfarm_db.repositories.benchmarks import BenchmarkRepository
from trtfarm_db.repositories.jobs import NewJob

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
        assert benchmarks.page(gpu="h200") == []


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
