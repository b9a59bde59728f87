"""A client of the HTTP API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

from trtfarm import __version__, errors
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.contract.v1 import (
    BenchmarkPage,
    FleetView,
    JobPage,
    JobRequest,
    JobView,
    ModelView,
    PlanPage,
    PlanView,
    SubmissionView,
    TimingCacheImport,
    TimingCacheList,
)
from trtfarm.sdk import transfer
from trtfarm.sdk.answers import View, parsed, problem, stranger

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_TRIES = 4
_BACKOFF_SECONDS = 0.25
_RETRIED = frozenset({502, 503, 504})
OnBytes = Callable[[int], None]


class FarmClient:
    """Talks to one farm. Calls that a farm may have missed are repeated; none takes effect twice.

    Raises:
        ConfigurationError: that is not the address of a farm.

    Raises, from every method:
        FarmUnreachableError: nobody answers.
        TrtFarmError: by kind, as the farm says.
    """

    def __init__(
        self, url: str, api_key: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        _check_url(url)
        headers = {"User-Agent": f"trtfarm/{__version__}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.url = url
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=_TIMEOUT, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- models ---

    def upload_model(self, path: Path, manifest: ModelManifest, on_bytes: OnBytes | None = None) -> Digest:
        """Sends what the farm does not have yet; resumes what was begun."""
        if self.has_model(manifest.digest):
            return manifest.digest
        transfer.upload_model(self.request, path, manifest, on_bytes or (lambda _: None))
        return manifest.digest

    def has_model(self, digest: Digest) -> bool:
        try:
            self.model(digest)
        except errors.ModelNotFoundError:
            return False
        return True

    def model(self, digest: Digest) -> ModelView:
        return self._view(ModelView, "GET", f"/v1/models/{digest}")

    # --- jobs ---

    def submit(self, request: JobRequest) -> SubmissionView:
        body = request.model_dump(mode="json", exclude_defaults=True)
        headers = {"Idempotency-Key": uuid4().hex}
        return self._view(SubmissionView, "POST", "/v1/jobs", json=body, headers=headers)

    def job(self, job_id: str) -> JobView:
        return self._view(JobView, "GET", f"/v1/jobs/{job_id}")

    def jobs(self, *, states: tuple[JobState, ...] = (), limit: int = 50, **filters: str | None) -> JobPage:
        """Newest first. ``filters``: model, gpu, cursor."""
        params = {"state": [state.value for state in states], "limit": limit, **_given(filters)}
        return self._view(JobPage, "GET", "/v1/jobs", params=params)

    def follow(self, job_id: str) -> Iterator[JobView]:
        """The job as it changes, until it has ended. Survives a restart of the farm."""
        last_event, failures = "0", 0
        while True:
            try:
                for event, job in self._events(job_id, last_event):
                    last_event, failures = event, 0
                    yield job
                    if job.state.terminal:
                        return
            except errors.FarmUnreachableError:
                raise  # somebody else answers
            except (httpx.TransportError, errors.UnavailableError) as error:
                failures += 1
                if failures >= _TRIES:
                    raise _unreachable(self.url, error) from error
            time.sleep(_BACKOFF_SECONDS * 2**failures)

    def _events(self, job_id: str, last_event: str) -> Iterator[tuple[str, JobView]]:
        headers = {"Last-Event-ID": last_event, "Accept": "text/event-stream"}
        url = f"/v1/jobs/{job_id}/events"
        with self._http.stream("GET", url, headers=headers, timeout=httpx.Timeout(60.0)) as response:
            if response.is_error:
                response.read()
                raise problem(response)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise stranger(response)
            data = ""
            for line in response.iter_lines():
                field, _, value = line.partition(":")
                if field == "id":
                    last_event = value.strip()
                elif field == "data":
                    data = value
                elif not line and data:  # only now is its id known
                    yield last_event, JobView.model_validate_json(data)
                    data = ""

    def cancel(self, job_id: str) -> JobView:
        return self._view(JobView, "POST", f"/v1/jobs/{job_id}/cancel")

    def retry(self, job_id: str) -> SubmissionView:
        return self._view(SubmissionView, "POST", f"/v1/jobs/{job_id}/retry")

    def log(self, job_id: str) -> str:
        return self.request("GET", f"/v1/jobs/{job_id}/log").text

    # --- plans ---

    def plan(self, digest: Digest) -> PlanView:
        return self._view(PlanView, "GET", f"/v1/plans/{digest}")

    def plans(self, *, limit: int = 50, **filters: str | None) -> PlanPage:
        """Newest first. ``filters``: model, gpu, runtime, cursor."""
        params = {"limit": limit, **_given(filters)}
        return self._view(PlanPage, "GET", "/v1/plans", params=params)

    def pull(self, digest: Digest, destination: Path, on_bytes: OnBytes | None = None) -> None:
        """Downloads a plan; resumes, verifies, and replaces ``destination`` only by the whole of it.

        Raises:
            BlobCorruptError: other bytes arrived.
        """
        url = f"/v1/plans/{digest}/content"
        transfer.download(self._http, url, digest, destination, on_bytes or (lambda _: None))

    def artifact(self, digest: Digest) -> bytes:
        """A small artifact, as an I/O description."""
        data = self.request("GET", f"/v1/artifacts/{digest}").content
        if Digest.of_bytes(data) != digest:
            raise errors.BlobCorruptError(f"Other bytes than {digest} arrived.")
        return data

    # --- what GPUs teach ---

    def benchmarks(self, *, limit: int = 50, **filters: str | None) -> BenchmarkPage:
        """Newest first. ``filters``: plan, model, gpu, runtime, cursor."""
        params = {"limit": limit, **_given(filters)}
        return self._view(BenchmarkPage, "GET", "/v1/benchmarks", params=params)

    def timing_caches(self, key: str | None = None) -> tuple[TimingCacheView, ...]:
        """The newest revision of each, or every revision of one."""
        url = f"/v1/timing-caches/{key}" if key else "/v1/timing-caches"
        return self._view(TimingCacheList, "GET", url).timing_caches

    def timing_cache(self, key: str, revision: int | None = None) -> bytes:
        """A revision's bytes, by default the newest's; verified."""
        params = {"revision": revision} if revision else {}
        response = self.request("GET", f"/v1/timing-caches/{key}/content", params=params)
        if f'"{Digest.of_bytes(response.content).hex}"' != response.headers["ETag"]:
            raise errors.BlobCorruptError("Other bytes arrived than the farm sent.")
        return response.content

    def import_timing_cache(self, path: Path, gpu: str, runtime: str | None = None) -> TimingCacheView:
        """Publishes a file as the newest revision; needs a key with scope admin."""
        digest = transfer.upload_file(self.request, path, "timing_cache")
        body = TimingCacheImport(digest=digest, gpu=gpu, runtime=runtime).model_dump(mode="json")
        return self._view(TimingCacheView, "POST", "/v1/timing-caches", json=body)

    def roll_back_timing_cache(self, key: str, revision: int) -> TimingCacheView:
        url = f"/v1/timing-caches/{key}/rollback"
        return self._view(TimingCacheView, "POST", url, params={"revision": revision})

    def fleet(self) -> FleetView:
        return self._view(FleetView, "GET", "/v1/fleet")

    # --- plumbing ---

    def request(self, method: str, url: str, *, tries: int = _TRIES, **options: Any) -> httpx.Response:
        """One call, repeated while nobody answers. Raises the error that the farm tells of.

        ``tries``: 1 for a call whose body can be read only once.
        """
        for attempt in range(tries):
            last = attempt == tries - 1
            try:
                response = self._http.request(method, url, **options)
            except httpx.TransportError as error:
                if last or isinstance(error, httpx.ConnectError):
                    raise _unreachable(self.url, error) from error
            else:
                if response.is_success:
                    return response
                if last or response.status_code not in _RETRIED:
                    raise problem(response)
            time.sleep(_BACKOFF_SECONDS * 2**attempt)
        raise AssertionError  # the last round returns or raises

    def _view(self, kind: type[View], method: str, url: str, **options: Any) -> View:
        return parsed(kind, self.request(method, url, **options))


def _check_url(url: str) -> None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise errors.ConfigurationError(f"{url!r} is no address of a farm: {error}.") from error
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise errors.ConfigurationError(
            f"{url!r} is no address of a farm.", hint="Write it as http://farm.example:8420."
        )


def _unreachable(url: str, error: Exception) -> errors.FarmUnreachableError:
    return errors.FarmUnreachableError(
        f"The farm at {url} does not answer: {error}",
        hint="Check TRTFARM_URL and that the farm is up; what was accepted is not lost.",
    )


def _given(filters: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}
