"""What is read of a queue: in the order of claims, with its workers and its past, and never all of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, insert, select

from tests import values
from tests.integration.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.forecast import QueueSnapshot, Work
from trtfarm.contract.jobs import JobKind
from trtfarm.contract.leases import WorkerInfo
from trtfarm.contract.worker import Pause, WorkerCondition
from trtfarm_db.base import db_now
from trtfarm_db.models import Job, Worker
from trtfarm_db.repositories import queues
from trtfarm_db.repositories.queues import QueueRepository
from trtfarm_db.repositories.workers import WorkerRepository

BUILD = Work(values.QUEUE, JobKind.BUILD, str(values.MODEL))
H200 = values.TARGET.model_copy(
    update={"gpu": "h200", "compute_capability": "9.0", "runtime": "tensorrt-8.6.0"}
)
SISTER = values.TARGET.model_copy(update={"gpu": "cc-12.0", "compute_capability": "12.0"})


def snapshot(farm: Farm, queue: str = values.QUEUE) -> QueueSnapshot:
    with farm.database.transaction() as connection:
        return QueueRepository(connection).snapshot(queue)


def register(farm: Farm, worker_id: str, *gpus: str, slots: int = 2, draining: bool = False) -> None:
    info = WorkerInfo(
        worker_id=worker_id,
        hostname="test",
        runtime=values.TARGET.runtime,
        platform="linux-x86_64",
        gpus=gpus,
        slots=slots,
    )
    with farm.database.transaction() as connection:
        WorkerRepository(connection).register(info)
        if draining:
            WorkerRepository(connection).seen(worker_id, draining=True)


def took(farm: Farm, number: int, seconds: float) -> None:
    job_id = farm.submit(1000 + number)
    farm.finish(farm.claimed())
    end = datetime.now(UTC)
    farm.change(job_id, started_at=end - timedelta(seconds=seconds), finished_at=end)


def test_an_empty_farm(farm):
    assert snapshot(farm) == QueueSnapshot((values.QUEUE,), 0, (), (), whole=True, history={})


def test_the_order_is_that_of_claims(farm):
    farm.create(values.spec(target=H200), priority=100)  # another queue
    for number, priority in enumerate([-5, 0, 0, 10]):
        farm.submit(number, priority=priority)
    order = [job.job_id for job in snapshot(farm).waiting]
    assert len(order) == 4
    assert [farm.claimed().job_id for _ in order] == order


def test_queues_of_the_same_workers_are_one_line(farm):
    register(farm, "a", "cc-8.9", "cc-12.0")
    register(farm, "b", "cc-8.9", "cc-12.0", slots=3)
    register(farm, "c", "cc-8.6", slots=50)
    register(farm, "leaving", "cc-8.9", slots=50, draining=True)
    register(farm, "gone", "cc-8.9", slots=50)
    with farm.database.transaction() as connection:
        WorkerRepository(connection).stopped("gone")
    first = farm.create(values.spec(0, target=SISTER))
    second = farm.submit(1)
    found = snapshot(farm)
    assert (found.queues, found.slots) == ((SISTER.queue, values.QUEUE), 5)
    assert [job.job_id for job in found.waiting] == [first.job_id, second]


def test_running_jobs_and_the_past(farm):
    for number, seconds in enumerate([10.0, 20.0]):
        took(farm, number, seconds)
    running = farm.submit()
    farm.claimed()
    farm.change(running, started_at=datetime.now(UTC) - timedelta(seconds=5))
    found = snapshot(farm)
    assert [job.job_id for job in found.running] == [running]
    assert 5 <= found.running[0].elapsed_seconds < 60
    assert found.history[BUILD] == pytest.approx([20.0, 10.0])  # newest first
    assert found.history[BUILD.target] == pytest.approx([20.0, 10.0])


def test_another_model_has_only_the_target_to_go_by(farm):
    took(farm, 0, 10.0)
    digest = Digest.of_bytes(b"another")
    with farm.models() as models:
        models.add(values.MANIFEST.model_copy(update={"onnx": digest}), values.INFO)
    farm.create(values.spec(model=digest))
    found = snapshot(farm)
    assert BUILD._replace(model=str(digest)) not in found.history
    assert found.history[BUILD.target] == pytest.approx([10.0])


def test_a_pause_after_a_failure_is_seen(farm):
    job_id = farm.submit()
    farm.change(job_id, available_at=db_now(50))
    assert 40 < snapshot(farm).waiting[0].delay_seconds <= 50


def test_far_back_one_is_counted_and_no_further_than_need_be(farm, monkeypatch):
    monkeypatch.setattr(queues, "HORIZON", 3)
    ids = [farm.submit(number) for number in range(8)]
    urgent = farm.submit(100, priority=1)
    found = snapshot(farm)
    assert not found.whole
    assert [job.job_id for job in found.waiting] == [urgent, *ids[:2]]
    with farm.database.transaction() as connection:
        assert QueueRepository(connection).ahead(found.queues, 0, ids[5]) == 6
        monkeypatch.setattr(queues, "COUNTED", 4)
        assert QueueRepository(connection).ahead(found.queues, 0, ids[5]) == 4


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_queries_of_a_long_queue_use_indexes(farm):
    """With 15 000 jobs queued and 45 000 done, nothing is read from end to end."""
    job_id = farm.submit()
    with farm.database.transaction() as connection:
        row = connection.execute(select(Job.__table__).where(Job.id == job_id)).mappings().one()
        many = []
        for number in range(60_000):
            done = number % 4 > 0
            at = row["created_at"]
            many.append(
                dict(row)
                | {"id": f"{number:036d}", "build_key": f"{number:064d}"}
                | ({"state": "succeeded", "started_at": at, "finished_at": at} if done else {})
            )
        connection.execute(insert(Job), many)
    with farm.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE) jobs")  # other tests' rows weigh nothing
    with farm.database.transaction() as connection:

        def scans() -> int:
            """Of this connection: others tell of theirs when they like."""
            counted = "SELECT pg_stat_get_xact_numscans('jobs'::regclass)"
            return connection.exec_driver_sql(counted).scalar_one()

        before = scans()
        found = QueueRepository(connection).snapshot(values.QUEUE)
        QueueRepository(connection).ahead(found.queues, 0, "z")
        assert scans() == before
        connection.execute(select(func.max(Job.crashes)))
        assert scans() == before + 1, "counted at all"
    assert len(found.waiting) == queues.HORIZON
    assert len(found.history[BUILD]) == 20


def test_the_table_of_workers_is_only_counted(farm):
    with farm.database.transaction() as connection:
        connection.execute(
            insert(Worker),
            [
                {
                    "id": f"w{number}",
                    "hostname": "h",
                    "runtime": values.TARGET.runtime,
                    "platform": "linux-x86_64",
                    "gpus": ["cc-8.9", "cc-12.0"],
                    "slots": 1,
                }
                for number in range(1000)
            ],
        )
    assert snapshot(farm).slots == 1000


def test_slots_that_pause_are_not_counted(farm):
    register(farm, "one", "cc-8.9", slots=3)
    register(farm, "two", "cc-8.9", slots=2)
    with farm.database.transaction() as connection:
        condition = WorkerCondition(paused=(Pause.DISK,), paused_slots=2)
        WorkerRepository(connection).seen("one", condition=condition)
    assert snapshot(farm).slots == 3
