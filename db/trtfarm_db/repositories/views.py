"""Rows → values of the contract."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from trtfarm.contract.benchmark import BenchmarkOptions, BenchmarkView, Measurement
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import BenchmarkWork, Claim
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.timing_cache import TimingCacheUse
from trtfarm.contract.v1 import AttemptView, ErrorView, JobView, PlanView, Progress


def plan_view(row: Row[Any]) -> PlanView:
    spec = BuildSpec.model_validate(row.spec)
    return PlanView(
        digest=row.digest,
        size_bytes=row.size_bytes,
        model=spec.model,
        target=spec.target,
        build_key=row.build_key,
        build_seconds=row.build_seconds,
        job_id=row.job_id,
        config=spec.config,
        profiles=spec.profiles,
        io=row.io_digest,
        log=row.log_digest,
        timing_cache=TimingCacheUse.model_validate(row.timing_cache) if row.timing_cache else None,
        created_at=row.created_at,
    )


def benchmark_view(row: Row[Any]) -> BenchmarkView:
    return BenchmarkView(
        job_id=row.job_id,
        plan=row.plan_digest,
        model=row.model_digest,
        gpu=row.gpu,
        runtime=row.runtime,
        options=BenchmarkOptions.model_validate(row.options),
        device=Device.model_validate(row.device),
        measurement=Measurement.model_validate(row.measurement),
        times=row.times_digest,
        layer_profile=row.layer_profile_digest,
        layer_information=row.layer_information_digest,
        created_at=row.created_at,
    )


def job_view(
    row: Row[Any], plan: PlanView | None, benchmark: BenchmarkView | None = None, **extra: Any
) -> JobView:
    spec = BuildSpec.model_validate(row.spec)
    return JobView(
        job_id=row.id,
        kind=row.kind,
        state=row.state,
        model=spec.model,
        target=spec.target,
        queue=row.queue,
        config=spec.config,
        profiles=spec.profiles,
        build_key=row.build_key,
        priority=row.priority,
        timeout_seconds=row.timeout_seconds,
        attempt=row.attempt,
        worker_id=row.worker_id,
        progress=Progress.model_validate(row.progress) if row.progress and row.state == "running" else None,
        cancel_requested=row.cancel_requested_at is not None,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        build_seconds=plan.build_seconds if plan else None,
        plan=plan,
        benchmark=benchmark,
        error=ErrorView.model_validate(row.error) if row.error else None,
        **extra,
    )


def attempt_view(row: Row[Any]) -> AttemptView:
    return AttemptView(
        number=row.number,
        worker_id=row.worker_id,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        error=ErrorView.model_validate(row.error) if row.error else None,
        log=Digest(row.log_digest) if row.log_digest else None,
    )


def claim(row: Row[Any]) -> Claim:
    return Claim(
        job_id=row.id,
        kind=row.kind,
        fence=row.fence,
        attempt=row.attempt,
        spec=BuildSpec.model_validate(row.spec),
        benchmark=BenchmarkWork.model_validate(row.benchmark) if row.benchmark else None,
        timeout_seconds=row.timeout_seconds,
        submitter=row.submitter,
    )
