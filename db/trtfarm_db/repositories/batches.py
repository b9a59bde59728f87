"""Many builds at once: what is known of them, submitted and cancelled with a few statements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, bindparam, case, func, insert, select, update
from uuid_utils import uuid7

from trtfarm.contract.campaign import REFUSALS, CellPlan
from trtfarm.contract.jobs import LIVE, Disposition, JobState, Outcome
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import ConflictError
from trtfarm_db.base import db_now, dialect_insert
from trtfarm_db.models import Artifact, ArtifactState, Attempt, Job, JobEvent, Plan, Submission
from trtfarm_db.models.jobs import _LIVE
from trtfarm_db.notices import TELL
from trtfarm_db.repositories.jobs import NewJob, job_values
from trtfarm_db.repositories.quotas import QuotaRepository

T = TypeVar("T")
_AT_ONCE = 500  # values of a statement; databases have limits
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
class CampaignCaller:
    """Who submits, and for which campaign."""

    principal: str
    campaign_id: str | None = None


@dataclass(frozen=True)
class Cancelled:
    """Jobs that ended here, that were running and were asked to end, and that others wait for."""

    ended: int
    asked: int
    shared: int


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
        for some in _batched(dict.fromkeys(keys)):  # as one query, it would be planned badly
            for row in self._connection.execute(_known(), {"keys": some}):
                found[row.build_key] = _read(row)
        return found

    def submit(
        self,
        wanted: Sequence[NewJob],
        caller: CampaignCaller,
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
            for key, known in self.known(todo).items():
                if known.refused and not retry_refused:
                    done[key] = None
                elif known.live:
                    done[key] = submitted[known.job_id] = Disposition.JOINED
                    joined[known.job_id] = (known, todo[key])
                elif known.state is JobState.SUCCEEDED and known.job_id not in distrusted:
                    done[key] = submitted[known.job_id] = Disposition.REUSED
            todo = {key: new for key, new in todo.items() if key not in done}
            for key, job_id in self._create(todo.values(), caller.principal, quota).items():
                done[key] = submitted[job_id] = Disposition.CREATED
            todo = {key: new for key, new in todo.items() if key not in done}
            if not todo:
                break
            # Somebody else created it in the meantime: look again and join.
        else:
            raise ConflictError("These builds keep changing their state; submit them again.")
        self._raise_priorities(joined)
        self._add_submissions(caller, submitted)
        return done

    def cancel(self, keys: Iterable[str], campaign_id: str) -> Cancelled:
        """Cancels live jobs of these builds that this campaign alone has submitted."""
        total = Cancelled(0, 0, 0)
        for some in _batched(dict.fromkeys(keys)):
            here = self._cancel(some, campaign_id)
            total = replace(
                total,
                ended=total.ended + here.ended,
                asked=total.asked + here.asked,
                shared=total.shared + here.shared,
            )
        return total

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

    def _raise_priorities(self, joined: dict[str, tuple[Known, NewJob]]) -> None:
        by_priority: dict[int, list[str]] = {}
        for job_id, (known, new) in joined.items():
            if new.priority > known.priority:
                by_priority.setdefault(new.priority, []).append(job_id)
        for priority, ids in by_priority.items():
            for some in _batched(sorted(ids)):
                raised = self._connection.execute(
                    update(Job)
                    .where(Job.id.in_(some), Job.state == JobState.QUEUED, Job.priority < priority)
                    .values(priority=priority)
                    .returning(Job.id)
                ).scalars()
                self._tell(raised, "prioritized", priority=priority)

    def _add_submissions(self, caller: CampaignCaller, submitted: dict[str, Disposition]) -> None:
        """A campaign that is declared again and again submits each job once."""
        rows = [
            {
                "id": str(uuid7()),
                "job_id": job_id,
                "disposition": disposition.value,
                "principal": caller.principal,
                "campaign_id": caller.campaign_id,
            }
            for job_id, disposition in submitted.items()
        ]
        if rows:
            statement = dialect_insert(self._connection.dialect.name, Submission).on_conflict_do_nothing(
                index_elements=[Submission.campaign_id, Submission.job_id]
            )
            self._connection.execute(statement, rows)

    def _cancel(self, keys: list[str], campaign_id: str) -> Cancelled:
        live = self._connection.execute(
            select(Job.id, Job.state, Job.cancel_requested_at)
            .where(Job.build_key.in_(keys), Job.state.in_(LIVE))
            .order_by(Job.id)  # all lock them in one order
            .with_for_update()
        ).all()
        others = select(Submission.job_id).where(
            Submission.job_id.in_([row.id for row in live]),
            Submission.campaign_id.is_(None) | (Submission.campaign_id != campaign_id),
        )
        shared = set(self._connection.execute(others).scalars())
        queued = [row.id for row in live if row.id not in shared and row.state == JobState.QUEUED]
        running = [
            row.id
            for row in live
            if row.id not in shared and row.state == JobState.RUNNING and row.cancel_requested_at is None
        ]
        if queued:
            self._connection.execute(
                update(Job)
                .where(Job.id.in_(queued))
                .values(
                    state=JobState.CANCELLED.value,
                    fence=Job.fence + 1,
                    cancel_requested_at=db_now(),
                    finished_at=db_now(),
                )
            )
            self._connection.execute(  # attempts whose lease had run out
                update(Attempt)
                .where(Attempt.job_id.in_(queued), Attempt.ended_at.is_(None))
                .values(outcome=Outcome.LOST.value, ended_at=db_now())
            )
        if running:
            self._connection.execute(
                update(Job).where(Job.id.in_(running)).values(cancel_requested_at=db_now())
            )
        self._tell(queued, "cancelled")
        self._tell(running, "cancel_requested")
        return Cancelled(len(queued), len(running), len(shared))

    def _tell(self, job_ids: Iterable[str], kind: str, **data: Any) -> None:
        rows = [{"job_id": job_id, "kind": kind, "data": data} for job_id in job_ids]
        if not rows:
            return
        statement = insert(JobEvent)
        if self._connection.dialect.name == "postgresql":
            statement = statement.returning(TELL)
        self._connection.execute(statement, rows)


def _batched(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
