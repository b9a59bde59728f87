"""What the tables themselves refuse, whoever writes to them."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import IntegrityError

from tests import values
from trtfarm_db.base import db_now
from trtfarm_db.models import ApiKey, Artifact, Attempt, Job, JobEvent, Model, Plan, Submission, Worker

ERROR = {"code": "INTERNAL", "message": "It did not work."}
LEASE = {"lease_expires_at": db_now(60), "worker_id": "worker-1"}


@pytest.mark.parametrize(
    "columns",
    [
        {"state": "paused"},
        {"state": ""},
        {"state": None},
        {"state": "running"},
        {"state": "running", "worker_id": "worker-1"},
        {"state": "running", "lease_expires_at": db_now(60)},
        {"state": "queued", **LEASE},
        {"state": "queued", "finished_at": db_now()},
        {"state": "queued", "error": ERROR},
        {"state": "running", "finished_at": db_now(), **LEASE},
        {"state": "running", "error": ERROR, **LEASE},
        {"state": "succeeded"},
        {"state": "succeeded", "finished_at": db_now(), **LEASE},
        {"state": "succeeded", "finished_at": db_now(), "error": ERROR},
        {"state": "cancelled"},
        {"state": "cancelled", "finished_at": db_now(), "error": ERROR},
        {"state": "failed"},
        {"state": "failed", "finished_at": db_now()},
        {"state": "failed", "error": ERROR},
        {"state": "failed", "finished_at": db_now(), "error": ERROR, **LEASE},
        {"model_digest": "sha256:" + "0" * 64},
        {"available_at": None},
        {"fence": None},
        {"spec": None},
    ],
    ids=lambda columns: ",".join(
        [str(columns.get("state", "")), *(name for name in columns if name != "state")]
    ),
)
def test_rows_of_jobs_that_contradict_themselves(farm, columns):
    job_id = farm.submit()
    with pytest.raises(IntegrityError):
        farm.change(job_id, **columns)
    assert farm.row(job_id).state == "queued"


@pytest.mark.parametrize(
    "columns",
    [
        {"state": "running", **LEASE},
        {"state": "succeeded", "finished_at": db_now()},
        {"state": "cancelled", "finished_at": db_now()},
        {"state": "failed", "finished_at": db_now(), "error": ERROR},
    ],
    ids=lambda columns: columns["state"],
)
def test_rows_of_jobs_that_make_sense(farm, columns):
    job_id = farm.submit()
    farm.change(job_id, **columns)
    assert farm.row(job_id).state == columns["state"]


@pytest.mark.parametrize("state", ["queued", "running"])
def test_one_live_job_of_a_build_key(farm, state):
    first, second = farm.submit(0), farm.submit(1)
    if state == "running":
        farm.change(first, state=state, **LEASE)
    key = farm.row(first).build_key
    with pytest.raises(IntegrityError):
        farm.change(second, build_key=key)
    farm.change(first, state="cancelled", finished_at=db_now(), lease_expires_at=None, worker_id=None)
    farm.change(second, build_key=key)


def copied(row, **columns):
    return dict(row._mapping) | columns


def refused(farm, statement):
    with pytest.raises(IntegrityError), farm.database.transaction() as connection:
        connection.execute(statement)


def test_one_plan_of_a_job(farm):
    job_id = farm.submit()
    farm.finish(farm.claimed())
    with farm.database.transaction() as connection:
        plan = connection.execute(Plan.__table__.select()).one()
    assert plan.job_id == job_id
    refused(farm, insert(Plan).values(copied(plan, digest="sha256:" + "1" * 64)))
    refused(farm, insert(Plan).values(copied(plan, job_id="no-such-job")))
    refused(farm, update(Plan).values(model_digest="sha256:" + "0" * 64))


def test_one_attempt_of_a_fence(farm):
    farm.submit()
    claim = farm.claimed()
    attempt = {"fence": claim.fence, "number": 2, "worker_id": "worker-2"}
    refused(farm, insert(Attempt).values(job_id=claim.job_id, **attempt))
    refused(farm, insert(Attempt).values(job_id="no-such-job", **attempt))


def test_events_and_submissions_are_of_a_job(farm):
    refused(farm, insert(JobEvent).values(job_id="no-such-job", kind="queued", data={}))
    submission = {"id": "1", "job_id": "no-such-job", "disposition": "created", "principal": "me"}
    refused(farm, insert(Submission).values(submission))


def test_what_is_in_use_stays(farm):
    farm.submit()
    refused(farm, delete(Model))
    refused(farm, delete(Job))


@pytest.mark.parametrize("table", [Artifact, Model, Worker, ApiKey])
def test_a_name_belongs_to_one_row(farm, table):
    rows = {
        Artifact: {"digest": "d", "kind": "plan", "size_bytes": 1, "etag": "e"},
        Model: {"digest": "d", "manifest": {}, "info": {}},
        Worker: {"id": "w", "hostname": "h", "runtime": "r", "platform": "p", "gpus": [], "slots": 1},
        ApiKey: {"id": "k", "name": "n", "scope": "read", "secret_hash": "0"},
    }
    with farm.database.transaction() as connection:
        connection.execute(insert(table).values(rows[table]))
    refused(farm, insert(table).values(rows[table]))


def test_values_of_the_contract_fit_their_columns(farm):
    """The longest of what the contract allows; PostgreSQL counts."""
    gpu = "l" * 80
    target = values.TARGET.model_copy(update={"gpu": gpu, "runtime": f"tensorrt-rtx-{'1.' * 30}1234567"})
    job = farm.create(values.spec(target=target))
    assert job is not None
    assert job.target.gpu == gpu
