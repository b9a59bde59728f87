"""Clients that do not give up, and write down what they were told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from tests.chaos.behaviour import Behaviour, workspace_bytes
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.v1 import JobRequest, JobView, SubmissionView, TargetRequest
from trtfarm.errors import (
    BlobCorruptError,
    ConflictError,
    FarmUnreachableError,
    OffsetMismatchError,
    UnavailableError,
)
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.answers import problem
from trtfarm.sdk.client import FarmClient

T = TypeVar("T")
_PAUSE_SECONDS = 0.1


@dataclass
class History:
    """What clients were told.

    Attributes:
        accepted: Idempotency-Key → ids of the jobs in the answers to it.
        behaviours: Idempotency-Key → what that build does.
        cancelled: jobs whose cancellation was confirmed.
        statuses: HTTP status → how often.
        ended: job → final states that were seen.
    """

    accepted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    ended: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    downloads: int = 0
    violations: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Recorder(httpx.HTTPTransport):
    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        with self._history.lock:
            self._history.statuses[response.status_code] += 1
        if response.status_code == 503 and "Retry-After" not in response.headers:
            self._history.violations.append(f"{request.url.path}: 503 without Retry-After")
        if response.status_code not in {503, 507} and response.status_code >= 500:
            self._history.violations.append(f"{request.method} {request.url.path}: {response.status_code}")
        return response


class Client:
    """``patience_seconds``: how long any one thing may take; more is a violation."""

    def __init__(self, url: str, history: History, patience_seconds: float = 60) -> None:
        self.history = history
        self._farm = FarmClient(url, transport=_Recorder(history))
        self._http = httpx.Client(base_url=url, transport=_Recorder(history), timeout=10)
        self._patience = patience_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._farm.close()
        self._http.close()

    def upload(self, path: Path) -> Digest:
        manifest = manifest_of(path)
        return self.insist(lambda: self._farm.upload_model(path, manifest))

    def upload_a_part(self, path: Path, size_bytes: int) -> None:
        """As a client whose network breaks; whoever uploads the file next goes on from there."""
        manifest = manifest_of(path)
        body = {"digest": manifest.onnx, "size_bytes": manifest.onnx_size_bytes}
        view = self.insist(lambda: self._request("POST", "/v1/uploads", json=body)).json()
        headers = {"Upload-Offset": str(view["offset"]), "Content-Type": "application/octet-stream"}
        data, url = path.read_bytes()[view["offset"] : size_bytes], f"/v1/uploads/{view['upload_id']}"
        with contextlib.suppress(FarmUnreachableError, UnavailableError, OffsetMismatchError):
            self._request("PATCH", url, content=data, headers=headers)

    def submit(self, key: str, request: JobRequest, behaviour: Behaviour) -> SubmissionView:
        body = request.model_dump(mode="json", exclude_defaults=True)
        headers = {"Idempotency-Key": key}
        answer = self.insist(lambda: self._request("POST", "/v1/jobs", json=body, headers=headers))
        submission = SubmissionView.model_validate_json(answer.content)
        with self.history.lock:
            self.history.accepted[key].append(submission.job.job_id)
            self.history.behaviours[key] = behaviour
        return submission

    def job(self, job_id: str) -> JobView:
        return self.insist(lambda: self._farm.job(job_id))

    def wait(self, job_id: str) -> JobView | None:
        """None if it does not end in time, which is a violation."""
        end = time.monotonic() + self._patience
        while True:
            job = self.job(job_id)
            if job.state.terminal:
                with self.history.lock:
                    self.history.ended[job_id].add(job.state.value)
                return job
            if time.monotonic() > end:
                self.history.violations.append(f"job {job_id} is {job.state} after {self._patience} s")
                return None
            time.sleep(_PAUSE_SECONDS)

    def cancel(self, job_id: str) -> None:
        try:
            job = self.insist(lambda: self._farm.cancel(job_id))
        except ConflictError:
            return  # it has ended
        if job.state.terminal:
            with self.history.lock:
                self.history.cancelled.add(job_id)

    def retry(self, job_id: str) -> SubmissionView:
        return self.insist(lambda: self._farm.retry(job_id))

    def download(self, digest: Digest, path: Path) -> None:
        try:
            self.insist(lambda: self._farm.pull(digest, path))
        except BlobCorruptError as error:
            self.history.violations.append(f"download: {error}")
        with self.history.lock:
            self.history.downloads += 1

    def log(self, job_id: str) -> str:
        return self.insist(lambda: self._farm.log(job_id))

    def metrics(self) -> str:
        return self.insist(lambda: self._request("GET", "/metrics")).text

    def ready(self) -> bool:
        return self.insist(lambda: self._request("GET", "/readyz")).is_success

    def _request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Once, with what is sent in the test's own words."""
        try:
            response = self._http.request(method, url, **options)
        except httpx.TransportError as error:
            raise FarmUnreachableError(str(error)) from error
        if response.is_error:
            raise problem(response)
        return response

    def insist(self, call: Callable[[], T]) -> T:
        """Until the farm answers."""
        end = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except (FarmUnreachableError, UnavailableError):
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE_SECONDS)


def build(
    model: Digest,
    gpu: str,
    number: int,
    behaviour: Behaviour = Behaviour.QUICK,
    *,
    seconds: float = 0.0,
    timing_cache: bool = False,
    timeout_seconds: float = 60.0,
    runtime: str | None = None,
    priority: int = 0,
) -> JobRequest:
    """With an exact ``runtime`` it waits for a worker, if none has joined the farm yet."""
    return JobRequest(
        model=model,
        target=TargetRequest(gpu=gpu, runtime=runtime),
        config=BuilderConfig(
            memory_pool_limits={"workspace": workspace_bytes(number, behaviour, seconds)},
            # Without a GPU there is none.
            disable_timing_cache=not (timing_cache or gpu.startswith("cc-")),
        ),
        timeout_seconds=timeout_seconds,
        priority=priority,
        wait_for_worker=runtime is not None,
    )
