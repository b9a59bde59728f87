"""Workers that come, live, drain, stop or vanish."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from uuid_utils import uuid7

from tests import values
from trtfarm.contract.leases import WorkerInfo
from trtfarm.contract.worker import Pause, WorkerCondition
from trtfarm_db.base import db_now
from trtfarm_db.models import Worker
from trtfarm_db.repositories.workers import ALIVE_SECONDS, WorkerRepository


@pytest.fixture
def ask(database):
    """Calls one method of the repository in a transaction of its own."""

    def call(name, *arguments, **options):
        with database.transaction() as connection:
            return getattr(WorkerRepository(connection), name)(*arguments, **options)

    return call


@pytest.fixture
def register(ask):
    def add(**fields):
        info = WorkerInfo.model_validate(
            {
                "worker_id": str(uuid7()),
                "hostname": "node-1",
                "runtime": "tensorrt-rtx-1.7.1.116",
                "platform": "linux-x86_64",
                "gpus": ("cc-8.9", "cc-9.0"),
                "slots": 2,
            }
            | fields
        )
        ask("register", info)
        return info

    return add


@pytest.fixture
def silent(database):
    """Makes a worker silent for so many seconds."""

    def change(info, seconds):
        with database.transaction() as connection:
            connection.execute(
                update(Worker).where(Worker.id == info.worker_id).values(last_seen_at=db_now(-seconds))
            )

    return change


def test_a_worker(ask, register):
    info = register()
    [view] = ask("views")
    assert (view.worker_id, view.hostname, view.runtime, view.platform) == (
        info.worker_id,
        "node-1",
        "tensorrt-rtx-1.7.1.116",
        "linux-x86_64",
    )
    assert (view.gpus, view.slots, view.running) == (("cc-8.9", "cc-9.0"), 2, 0)
    assert (view.alive, view.draining) == (True, False)
    assert view.started_at <= view.last_seen_at


def test_an_id_is_registered_once(register):
    info = register()
    with pytest.raises(IntegrityError):
        register(worker_id=info.worker_id)


def test_a_worker_is_alive_while_it_is_heard_of(ask, register, silent):
    info = register()
    other = register()
    silent(info, ALIVE_SECONDS - 5)
    assert [view.alive for view in ask("views")] == [True, True]
    silent(info, ALIVE_SECONDS + 5)
    assert {view.worker_id: view.alive for view in ask("views")} == {
        info.worker_id: False,
        other.worker_id: True,
    }
    ask("seen", info.worker_id)
    assert [view.alive for view in ask("views")] == [True, True]


def test_a_worker_drains(ask, register):
    info, _ = register(), register()
    ask("seen", info.worker_id, draining=True)
    assert [view.draining for view in ask("views")] == [False, True]
    ask("seen", info.worker_id)
    assert [view.draining for view in ask("views")] == [False, False]


def test_those_that_are_gone_are_shown_when_asked_for(ask, register, silent):
    stopped, vanished, here = register(), register(), register()
    ask("stopped", stopped.worker_id)
    silent(vanished, 25 * 3600)
    assert [view.worker_id for view in ask("views")] == [here.worker_id]
    everybody = ask("views", gone=True)
    assert [view.worker_id for view in everybody] == [
        here.worker_id,
        vanished.worker_id,
        stopped.worker_id,
    ]  # newest first
    assert [view.alive for view in everybody] == [True, False, False]


def test_a_stopped_worker_is_not_alive_however_lately_it_was_seen(ask, register):
    info = register()
    ask("stopped", info.worker_id)
    ask("seen", info.worker_id)
    assert [view.alive for view in ask("views", gone=True)] == [False]


def test_what_they_run(ask, register, farm):
    one, other = register(), register()
    for number in range(3):
        farm.submit(number)
    farm.claimed(one.worker_id)
    done = farm.claimed(one.worker_id)
    farm.claimed(other.worker_id)
    assert [view.running for view in ask("views")] == [1, 2]
    farm.finish(done)
    assert [view.running for view in ask("views")] == [1, 1]


def test_what_nobody_registered_is_not_seen(ask):
    assert not ask("seen", "no-such-worker")
    ask("stopped", "no-such-worker")
    assert ask("views", gone=True) == []


def test_those_that_are_gone_for_long_are_forgotten(ask, register, silent):
    here, lately, long_ago = register(), register(gpus=("cc-7.5",)), register(gpus=("cc-8.0",))
    silent(lately, 89 * 86400)
    silent(long_ago, 91 * 86400)
    assert [ask("forget", 90 * 86400), ask("forget", 90 * 86400)] == [1, 0]
    assert [view.worker_id for view in ask("views", gone=True)] == [lately.worker_id, here.worker_id]
    assert {gpu for gpu, _, _ in ask("targets")} == {"cc-7.5", *here.gpus}
    assert ask("seen", here.worker_id)
    assert not ask("seen", long_ago.worker_id)


def test_of_those_that_are_gone_the_last_of_each_kind_is_remembered(ask, register, silent):
    kinds = [{}, {"gpus": ("cc-8.0",)}, {"runtime": "tensorrt-rtx-1.6.0"}, {"platform": "linux-aarch64"}]
    last = [register(**kind) for kind in kinds]
    for number, info in enumerate(last):
        silent(info, (2 + number) * 86400)
    before = [register(**kind) for kind in kinds for _ in range(2)]
    for info in before:
        silent(info, 7 * 86400)
    away = register()
    silent(away, 23 * 3600)
    here = register(gpus=("cc-8.0",))
    served = ask("targets")
    assert ask("forget", 90 * 86400) == len(before) + 2  # of two kinds there are later ones
    kept = [here, away, *reversed(last[2:])]
    assert [view.worker_id for view in ask("views", gone=True)] == [info.worker_id for info in kept]
    assert ask("targets") == served


def test_targets_are_those_of_all_workers_that_are_remembered(ask, register, silent):
    assert ask("targets") == {}
    rtx = values.TARGET.runtime
    ask("stopped", register().worker_id)
    silent(register(gpus=("cc-9.0", "cc-12.0")), 100 * 3600)
    register(gpus=("h200",), runtime="tensorrt-8.6.0")
    register(gpus=("h200",), runtime="tensorrt-8.6.0", platform="linux-aarch64")
    register(gpus=("h200",), runtime="tensorrt-8.6.0")
    register(gpus=())
    assert ask("targets") == {
        ("cc-12.0", rtx, "linux-x86_64"): False,
        ("cc-8.9", rtx, "linux-x86_64"): False,
        ("cc-9.0", rtx, "linux-x86_64"): False,
        ("h200", "tensorrt-8.6.0", "linux-aarch64"): True,
        ("h200", "tensorrt-8.6.0", "linux-x86_64"): True,
    }


def test_what_a_worker_tells_of_itself(ask, register):
    info = register()
    condition = WorkerCondition(paused=(Pause.DISK,), spool_entries=2, spool_bytes=2**40)
    assert [view.condition for view in ask("views")] == [WorkerCondition()]
    ask("seen", info.worker_id, condition=condition)
    assert [view.condition for view in ask("views")] == [condition]
