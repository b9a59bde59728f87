"""Many builds at once: what is known of them, and submitted with a few statements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, case, func, insert, select, update
from uuid_utils import uuid7

from trtfarm.contract.campaign import REFUSALS, CellPlan
from trtfarm.contract.jobs import LIVE, Disposition, JobState
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import ConflictError
from trtfarm_db.base import dialect_insert, in_batches
from trtfarm_db.models import Artifact, ArtifactState, Job, JobEvent, Plan, Submission
from trtfarm_db.models.jobs import _LIVE
from trtfarm_db.repositories.cancelling import tell
from trtfarm_db.repositories.jobs import NewJob, job_values
from trtfarm_db.repositories.participants import ParticipantRepository
from trtfarm_db.repositories.quotas import QuotaRepository

_ROUNDS = 5


@dataclass(frozen=True)
class Known:
    """The job that speaks for a build key: the live one, else the newest with a plan, else the newest."""

    job_id: str
    state: JobState
    priority: int
    error: ErrorView | None
    progress: Progress | None
    plan: CellPlan | None
    build_seconds: float | None
    plan_is_there: bool  # as far as the farm knows without a look into the store

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def refused(self) -> bool:
        """The same build would meet the same error."""
        return self.state is JobState.FAILED and self.error is not None and self.error.code in REFUSALS


@dataclass(frozen=True)
class BatchCaller:
    """Who submits, and for which campaign or standing order."""

    principal: str
    origin_id: str


@cache
def _known() -> Select[Any]:
    """The jobs that speak for ``keys``, each with its plan and whether its bytes are known to be there."""
    rank = case((Job.state.in_(LIVE), 0), (Job.state == JobState.SUCCEEDED, 1), else_=2)
    place = func.row_number().over(partition_by=Job.build_key, order_by=(rank, Job.id.desc()))
    jobs = select(Job.id, place.label("place")).where(Job.build_key.in_(bindparam("keys", expanding=True)))
    best = jobs.subquery()
    return (
        select(
            Job.id,
            Job.build_key,
            Job.state,
            Job.priority,
            Job.error,
            Job.progress,
            Plan.digest,
            Plan.size_bytes,
            Plan.build_seconds,
            Artifact.digest.label("artifact"),
        )
        .join(best, (best.c.id == Job.id) & (best.c.place == 1))
        .outerjoin(Plan, Plan.job_id == Job.id)
        .outerjoin(Artifact, (Artifact.digest == Plan.digest) & (Artifact.state == ArtifactState.READY.value))
    )


def _read(row: Row[Any]) -> Known:
    running = row.state == JobState.RUNNING
    return Known(
        job_id=row.id,
        state=JobState(row.state),
        priority=row.priority,
        error=ErrorView.model_validate(row.error) if row.error else None,
        progress=Progress.model_validate(row.progress) if running and row.progress else None,
        plan=CellPlan(digest=row.digest, size_bytes=row.size_bytes) if row.digest else None,
        build_seconds=row.build_seconds,
        plan_is_there=row.artifact is not None,
    )


@cache
def _insert_jobs(dialect: str) -> Any:
    return (
        dialect_insert(dialect, Job)
        .on_conflict_do_nothing(index_elements=[Job.build_key], index_where=_LIVE)
        .returning(Job.id, Job.build_key)
    )


class BatchRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def known(self, keys: Iterable[str]) -> dict[str, Known]:
        """By build key; those without any job are left out."""
        found = {}
        for some in in_batches(dict.fromkeys(keys)):  # as one query, it would be planned badly
            for row in self._connection.execute(_known(), {"keys": some}):
                found[row.build_key] = _read(row)
        return found

    def submit(
        self,
        wanted: Sequence[NewJob],
        caller: BatchCaller,
        *,
        distrusted: Collection[str] = (),
        retry_refused: bool = False,
    ) -> dict[str, Disposition | None]:
        """Reuses, joins or queues each build; by build key. None: refused before, and not tried again.

        ``distrusted``: jobs whose plans are lost. Jobs that are joined are raised to the higher priority.

        Raises:
            ConflictError: others keep ending these builds at the same moment.
        """
        todo = {new.key: new for new in wanted}
        done: dict[str, Disposition | None] = {}
        joined: dict[str, tuple[Known, NewJob]] = {}
        submitted: dict[str, Disposition] = {}
        quota = QuotaRepository(self._connection).of(caller.principal)
        for _ in range(_ROUNDS):
            live: dict[str, tuple[Known, NewJob]] = {}
            for key, known in self.known(todo).items():
                if known.refused and not retry_refused:
                    done[key] = None
                elif known.live:
                    live[known.job_id] = (known, todo.pop(key))
                elif known.state is JobState.SUCCEEDED and known.job_id not in distrusted:
                    done[key] = submitted[known.job_id] = Disposition.REUSED
            todo = {key: new for key, new in todo.items() if key not in done}
            for key, job_id in self._create(todo.values(), caller.principal, quota).items():
                done[key] = submitted[job_id] = Disposition.CREATED
            # Last, so that nobody who waits for one of these jobs is waited for in ``_create``.
            joinable = self._joinable(live)
            for job_id, (known, new) in live.items():
                if job_id in joinable:
                    done[new.key] = submitted[job_id] = Disposition.JOINED
                    joined[job_id] = (known, new)
                else:
                    todo[new.key] = new
            todo = {key: new for key, new in todo.items() if key not in done}
            if not todo:
                break
            # Somebody else created or ended it in the meantime: look again.
        else:
            raise ConflictError("These builds keep changing their state; submit them again.")
        self._raise_priorities(joined)
        self._add_submissions(caller, submitted)
        ParticipantRepository(self._connection).joined(joined)
        return done

    def _create(self, wanted: Iterable[NewJob], principal: str, quota: str) -> dict[str, str]:
        """Job by build key, of those that were not in flight already."""
        # Their ids, and so their turns, in the order declared.
        rows = [{**job_values(new, principal), "quota": quota} for new in wanted]
        rows.sort(key=lambda row: str(row["build_key"]))  # all lock them in one order
        created: dict[str, str] = {}
        if rows:
            statement = _insert_jobs(self._connection.dialect.name)
            created = {row.build_key: row.id for row in self._connection.execute(statement, rows)}
        events = [
            {"job_id": row["id"], "kind": "queued", "data": {"target": row["queue"]}}
            for row in rows
            if created.get(row["build_key"]) == row["id"]
        ]
        if events:
            self._connection.execute(insert(JobEvent), events)
        return created

    def _joinable(self, job_ids: Iterable[str]) -> set[str]:
        """Those that are live, and stay so until the commit unless their own attempts end them."""
        found: set[str] = set()
        for some in in_batches(sorted(job_ids)):
            live = select(Job.id).where(Job.id.in_(some), Job.state.in_(LIVE)).order_by(Job.id)
            found |= set(self._connection.scalars(live.with_for_update(key_share=True)))
        return found

    def _raise_priorities(self, joined: dict[str, tuple[Known, NewJob]]) -> None:
        by_priority: dict[int, list[str]] = {}
        for job_id, (known, new) in joined.items():
            if new.priority > known.priority:
                by_priority.setdefault(new.priority, []).append(job_id)
        for priority, ids in by_priority.items():
            for some in in_batches(sorted(ids)):
                raised = self._connection.execute(
                    update(Job)
                    .where(Job.id.in_(some), Job.state == JobState.QUEUED, Job.priority < priority)
                    .values(priority=priority)
                    .returning(Job.id)
                ).scalars()
                tell(self._connection, raised, "prioritized", priority=priority)

    def _add_submissions(self, caller: BatchCaller, submitted: dict[str, Disposition]) -> None:
        """What is declared again and again submits each job once, and once more after it was withdrawn."""
        rows = [
            {
                "id": str(uuid7()),
                "job_id": job_id,
                "disposition": disposition.value,
                "principal": caller.principal,
                "origin_id": caller.origin_id,
            }
            for job_id, disposition in submitted.items()
        ]
        if rows:
            statement = dialect_insert(self._connection.dialect.name, Submission)
            again = {
                name: statement.excluded[name] for name in ("id", "disposition", "principal", "created_at")
            }
            statement = statement.on_conflict_do_update(
                index_elements=[Submission.origin_id, Submission.job_id],
                set_=again | {"withdrawn_at": None},
                where=Submission.withdrawn_at.is_not(None),
            )
            self._connection.execute(statement, rows)
