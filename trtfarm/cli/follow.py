"""Following jobs live, on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from trtfarm.cli.output import shown, size, stderr
from trtfarm.cli.waiting import outlook
from trtfarm.contract.jobs import JobState
from trtfarm.contract.v1 import JobView
from trtfarm.sdk.client import FarmClient

_MARKS = {
    JobState.SUCCEEDED: ("✓", "green"),
    JobState.FAILED: ("✗", "red"),
    JobState.CANCELLED: ("-", "yellow"),
    JobState.QUEUED: ("·", "dim"),
}
_REFRESH_SECONDS = 0.1
_MAX_STREAMS = 16


class Follower:
    """Follows jobs until all have ended; shows a line a job on a terminal, a line a change elsewhere."""

    def __init__(self, client: FarmClient, *, quiet: bool) -> None:
        self._client = client
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._lock = threading.Lock()
        self._jobs: dict[str, JobView] = {}
        self._since = time.monotonic()

    def follow(self, jobs: Sequence[JobView]) -> dict[str, JobView]:
        """The jobs as they ended. KeyboardInterrupt leaves them running."""
        self._jobs = {job.job_id: job for job in jobs}
        waiting = [job.job_id for job in self._jobs.values() if not job.state.terminal]
        if not waiting:
            return self._jobs
        pool = ThreadPoolExecutor(min(len(waiting), _MAX_STREAMS), thread_name_prefix="follow")
        try:
            futures = [pool.submit(self._follow, job_id) for job_id in waiting]
            if self._live:
                with Live(get_renderable=self._render, console=stderr, transient=True):
                    while not all(future.done() for future in futures):
                        time.sleep(_REFRESH_SECONDS)
            for future in futures:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return self._jobs

    def _follow(self, job_id: str) -> None:
        for job in self._client.follow(self._jobs[job_id]):
            with self._lock:
                before, self._jobs[job_id] = self._jobs[job_id], job
            if not self._quiet and not self._live and job.state.terminal and before.state != job.state:
                stderr.print(line(job), markup=False)

    def _render(self) -> Group:
        with self._lock:
            jobs = list(self._jobs.values())
        spinner = Spinner("dots")
        rows: list[Text | Spinner] = []
        for job in jobs:
            mark, style = _MARKS.get(job.state, ("", ""))
            text = shown(line(job), style)
            if job.state is JobState.RUNNING:
                spinner = Spinner("dots", text=shown(line(job)))
                rows.append(spinner)
            else:
                rows.append(Text.assemble((f"{mark} ", style), text))
        rows.append(Text(f"{time.monotonic() - self._since:.0f} s", style="dim"))
        return Group(*rows)


def line(job: JobView) -> str:
    """Where a job stands, in one line."""
    target = f"{job.target.gpu:<8} {job.target.runtime}"
    if job.state is JobState.SUCCEEDED and job.plan is not None:
        return f"{target}  {job.plan.build_seconds:.1f} s  {size(job.plan.size_bytes)}  {job.plan.digest}"
    if job.state is JobState.FAILED and job.error is not None:
        return f"{target}  failed [{job.error.code}] {job.error.message}"
    stands: str = job.state
    if job.progress is not None:
        done = f" {job.progress.fraction:.0%}" if job.progress.fraction is not None else ""
        stands = f"{job.progress.stage}{done}"
    return f"{target}  {', '.join(filter(None, (stands, outlook(job))))}"
