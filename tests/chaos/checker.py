"""What must hold when a farm has come to rest, read from its clients' history, its database and its disks."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Row, select

from tests.chaos.behaviour import ENDS, Behaviour
from tests.chaos.client import History
from tests.chaos.farm import ChaosFarm
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState, Outcome
from trtfarm.contract.leases import RetryPolicy
from trtfarm.store import ArtifactStore
from trtfarm_db.models import Artifact, Attempt, Job, JobEvent, Plan, Submission, TimingCache, Upload

_TERMINAL = {"succeeded", "failed", "cancelled"}
# Errors that attempts may end with through no fault of the job's.
_OTHERS = {"WORKER_LOST", "WORKER_IO", "INTERNAL", "BUILD_CRASHED", "CONFIGURATION", "DB_UNAVAILABLE"}
_OTHERS |= {"STORE_UNAVAILABLE", "UNAVAILABLE", "STORAGE_FULL", "INPUT_LOST"}
_AFTER = {  # kind of event → what may come before it
    "queued": {None},
    "started": {"queued", "requeued", "started", "cancel_requested"},
    "requeued": {"started", "cancel_requested", "requeued"},
    "cancel_requested": {"started", "requeued"},
    **{end: {"queued", "started", "requeued", "cancel_requested"} for end in _TERMINAL},
}


@dataclass
class Report:
    violations: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.violations.append(what)


@dataclass(frozen=True)
class Rows:
    jobs: dict[str, Row[Any]]
    attempts: dict[str, list[Row[Any]]]  # by job, in order of fences
    events: dict[str, list[Row[Any]]]
    plans: dict[str, list[Row[Any]]]
    submissions: list[Row[Any]]
    artifacts: dict[str, Row[Any]]  # those that are handed out
    caches: dict[str, list[Row[Any]]]  # by key, in order of revisions
    open_uploads: set[str]


def check(farm: ChaosFarm, history: History, policy: RetryPolicy | None = None) -> Report:
    """Call it when every process of the farm has been stopped."""
    report, policy = Report([*history.violations]), policy or RetryPolicy()
    database = farm.database()
    try:
        rows = _read(database)
    finally:
        database.close()
    store = farm.store()
    _submissions(report, rows, history)
    for job_id, job in rows.jobs.items():
        _job(report, rows, job, policy)
        _result(report, rows, store, job_id, job)
    _ends(report, rows, history)
    _blobs(report, rows, farm, store)
    _timing_caches(report, rows, store)
    _intervals(report, farm)
    _nothing_left(report, rows, farm, store)
    outcomes = Counter(each.outcome for some in rows.attempts.values() for each in some)
    report.numbers |= {
        "submissions": len(history.accepted),
        "jobs": len(rows.jobs),
        "states": dict(Counter(job.state for job in rows.jobs.values())),
        "attempts": sum(map(len, rows.attempts.values())),
        "outcomes": dict(outcomes),
        "downloads": history.downloads,
        "statuses": dict(history.statuses),
        "timing_cache_revisions": sum(map(len, rows.caches.values())),
    }
    return report


def _read(database: Any) -> Rows:
    def grouped(rows: Any, name: str) -> dict[str, list[Row[Any]]]:
        groups: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in rows:
            groups[getattr(row, name)].append(row)
        return groups

    with database.transaction() as connection:
        run = connection.execute
        return Rows(
            jobs={row.id: row for row in run(select(Job))},
            attempts=grouped(run(select(Attempt).order_by(Attempt.fence)), "job_id"),
            events=grouped(run(select(JobEvent).order_by(JobEvent.id)), "job_id"),
            plans=grouped(run(select(Plan)), "job_id"),
            submissions=list(run(select(Submission))),
            artifacts={row.digest: row for row in run(select(Artifact).where(Artifact.state == "ready"))},
            caches=grouped(run(select(TimingCache).order_by(TimingCache.revision)), "key"),
            open_uploads=set(run(select(Upload.id).where(Upload.completed_at.is_(None))).scalars()),
        )


def _submissions(report: Report, rows: Rows, history: History) -> None:
    """Accepted means durable, and a repeated key is one submission."""
    by_key = defaultdict(list)
    for row in rows.submissions:
        if row.idempotency_key:
            by_key[row.idempotency_key].append(row.job_id)
    for key, told in history.accepted.items():
        report.expect(len(set(told)) == 1, f"key {key}: answered with jobs {set(told)}")
        report.expect(by_key[key] == told[:1], f"key {key}: told {told[0]}, the database has {by_key[key]}")
    for job_id in {job_id for told in history.accepted.values() for job_id in told}:
        job = rows.jobs.get(job_id)
        report.expect(job, f"job {job_id} was accepted and is lost")
        report.expect(job is None or job.state in _TERMINAL, f"job {job_id} is {job and job.state}")
    for job_id, states in history.ended.items():
        job = rows.jobs.get(job_id)
        report.expect(
            job and states == {job.state}, f"job {job_id} was seen as {states}, now {job and job.state}"
        )
    for job_id in history.cancelled:
        report.expect(rows.jobs[job_id].state == "cancelled", f"job {job_id}: confirmed as cancelled, is not")


def _job(report: Report, rows: Rows, job: Row[Any], policy: RetryPolicy) -> None:
    attempts, kinds = rows.attempts[job.id], [each.kind for each in rows.events[job.id]]
    fences = [each.fence for each in attempts]
    name = f"job {job.id}"
    report.expect(len(set(fences)) == len(fences), f"{name}: fences {fences}")
    started = [each.started_at for each in attempts]
    report.expect(started == sorted(started), f"{name}: attempts do not start in the order of their fences")
    report.expect(not fences or job.fence >= fences[-1], f"{name}: fence {job.fence} after {fences}")
    report.expect(all(each.outcome for each in attempts), f"{name}: an attempt is open")
    complete = [each for each in attempts if each.outcome == Outcome.COMPLETE]
    report.expect(
        len(complete) == (job.state == JobState.SUCCEEDED), f"{name} {job.state}: {len(complete)} complete"
    )
    if complete:
        report.expect(complete[0].fence == fences[-1], f"{name}: won by {complete[0].fence} of {fences}")
    charged = [each for each in attempts if each.outcome != Outcome.RELEASED]
    crashed = [each for each in attempts if each.outcome == Outcome.CRASHED]
    report.expect(len(charged) <= policy.max_attempts, f"{name}: {len(charged)} attempts")
    report.expect(len(crashed) <= policy.max_crashes, f"{name}: {len(crashed)} crashes")
    before: str | None = None
    for kind in kinds:
        report.expect(before in _AFTER[kind], f"{name}: {kind} after {before}")
        before = kind
    report.expect(before == job.state, f"{name} is {job.state}, its last event {before}")


def _result(report: Report, rows: Rows, store: ArtifactStore, job_id: str, job: Row[Any]) -> None:
    plans = rows.plans[job_id]
    report.expect(len(plans) == (job.state == "succeeded"), f"job {job_id} {job.state}: {len(plans)} plans")
    for plan in plans:
        for digest in (plan.digest, plan.io_digest, plan.log_digest):
            report.expect(digest in rows.artifacts, f"job {job_id}: {digest} is no artifact of the farm")
        content = json.loads(store.read(Digest(plan.digest)))
        complete = [each.fence for each in rows.attempts[job_id] if each.outcome == Outcome.COMPLETE]
        report.expect(
            (content["job"], [content["fence"]]) == (job_id, complete),
            f"job {job_id}: its plan is of {content['job']}, fence {content['fence']}, not {complete}",
        )


def _ends(report: Report, rows: Rows, history: History) -> None:
    """A job ends as its build does, or for a reason that is not its own, or because somebody cancelled it."""
    unlike = Counter[str]()
    for key, (job_id, *_) in history.accepted.items():
        job, wanted = rows.jobs.get(job_id), ENDS[history.behaviours[key]]
        if job is None or job.state == "cancelled":
            continue
        code = job.error and job.error["code"]
        if code != wanted:
            unlike[f"{history.behaviours[key].name} {code or 'succeeded'}"] += 1
            report.expect(code in _OTHERS, f"job {job_id} ({history.behaviours[key].name}): {job.error}")
        if history.behaviours[key] is Behaviour.POISON and code == "BUILD_CRASHED":
            last = rows.attempts[job_id][-1]
            report.expect("SIG" in job.error["message"], f"poison {job_id}: no signal in {job.error}")
            report.expect(last.log_digest in rows.artifacts, f"poison {job_id} left no log")
    report.numbers["ended_by_faults"] = dict(unlike)


def _blobs(report: Report, rows: Rows, farm: ChaosFarm, store: ArtifactStore) -> None:
    count = 0
    for path in (farm.artifacts / "sha256").glob("*/*"):
        digest = Digest("sha256:" + path.parent.name + path.name)
        with path.open("rb") as file:
            report.expect(Digest.of_file(file) == digest, f"{path} has other bytes")
        count += 1
    for digest in rows.artifacts:
        report.expect(store.stat(Digest(digest)) is not None, f"{digest} is missing in the store")
    report.expect(not list(farm.artifacts.glob("quarantine/**/*")), "something is in quarantine")
    report.numbers["blobs_rehashed"] = count


def _timing_caches(report: Report, rows: Rows, store: ArtifactStore) -> None:
    for key, revisions in rows.caches.items():
        numbers = [each.revision for each in revisions]
        report.expect(numbers == list(range(1, len(numbers) + 1)), f"timing cache {key}: {numbers}")
        known: set[str] = set()
        for each in revisions:
            entries = set(store.read(Digest(each.digest)).decode().split())
            report.expect(known <= entries, f"timing cache {key}, {each.revision} lost {known - entries}")
            known = entries


def _intervals(report: Report, farm: ChaosFarm) -> None:
    """No two children on one GPU at a time."""
    path = farm.folder / "intervals"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    conflicts = [line for line in lines if line["event"] == "conflict"]
    report.expect(not conflicts, f"two children on one GPU: {conflicts[:3]}")
    open_on: dict[str, dict[str, Any]] = {}
    for line in lines:
        key = line["gpu"] or line["child"]
        other = open_on.get(key)
        if line["event"] == "start":
            # Without a stop: it was killed, and only another child may come after it.
            overlaps = other is not None and other["child"] == line["child"]
            report.expect(not overlaps, f"a child began {line} within {other}")
            open_on[key] = line
        elif line["event"] == "stop":
            report.expect(other and other["child"] == line["child"], f"{line} ended within {other}")
            open_on.pop(key, None)
    report.numbers["intervals"] = sum(line["event"] == "start" for line in lines)


def _nothing_left(report: Report, rows: Rows, farm: ChaosFarm, store: ArtifactStore) -> None:
    left = list(family(farm.folder))
    report.expect(not left, f"processes are left: {left}")
    for scratch in farm.scratches():
        partial = [each.name for each in (scratch / "models").glob(".*.partial")]
        report.expect(not partial, f"half a model is left in {scratch.name}: {partial}")
        spooled = [each.name for each in (scratch / "spool").glob("*")]
        report.expect(not spooled, f"attempts are left in {scratch.name}: {spooled}")
    staged = {each.name for each in farm.staging.glob("*")} - rows.open_uploads
    report.expect(not staged, f"uploads are left: {staged}")
    report.numbers["left_by_killed_writers_bytes"] = store.sweep(0)
    report.expect(not list((farm.artifacts / "incoming").glob("*")), "the store has files of killed writers")
    held = [path.name for path in _lock_files(farm) if _is_locked(path)]
    report.expect(not held, f"locks are held: {held}")


def family(folder: Path) -> Iterator[str]:
    """Living processes that were started for a farm, by a variable that they inherit."""
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("CHAOS_FOLDER") == str(folder)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                yield f"{process.pid} {' '.join(process.cmdline())}"
        except psutil.Error:
            continue


def _lock_files(farm: ChaosFarm) -> list[Path]:
    found = [*farm.folder.glob("*.live"), *farm.home.glob("*.lock")]
    for scratch in farm.scratches():
        found += scratch.glob("models/.*.lock")
    for live in farm.folder.glob("*.live"):  # the worker's own locks of the same GPUs
        found += [Path(place, f"trtfarm-{live.stem}.lock") for place in ("/run/lock", "/tmp")]
    return [path for path in found if path.exists()]


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
