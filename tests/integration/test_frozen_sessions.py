"""A process that is frozen in the middle of a transaction does not keep its locks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from tests.integration.farm import Farm
from trtfarm.contract.leases import Claim, RetryPolicy
from trtfarm.errors import DatabaseUnavailableError
from trtfarm_db.base import let_rest
from trtfarm_db.engine import Database
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_db.settings import DatabaseSettings

REST_SECONDS = 1.0  # so long, four times a statement's limit, a transaction of ``frozen`` may do nothing

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def frozen(farm: Farm) -> Iterator[Database]:
    """The same database, for a process whose transactions may not rest for long."""
    url = farm.database.engine.url.render_as_string(hide_password=False)
    settings = DatabaseSettings.model_validate({"url": url, "statement_timeout_seconds": REST_SECONDS / 4})
    database = Database.open(settings, "trtfarm-test")
    yield database
    database.close()


def renew(connection: Connection, claim: Claim) -> None:
    LeaseRepository(connection, lease_seconds=60, policy=RetryPolicy()).renew(claim, "worker-1", None)


def test_a_worker_that_is_frozen_in_a_renewal_loses_its_job(farm, frozen):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.expire(job_id)

    def freeze_in_a_renewal() -> None:
        with frozen.transaction() as connection:
            renew(connection, claim)
            assert farm.reap() == []  # nobody waits for its lock
            end = time.monotonic() + 20
            while not farm.reap():
                assert time.monotonic() < end
                time.sleep(0.1)
            renew(connection, claim)

    with pytest.raises(DatabaseUnavailableError):
        freeze_in_a_renewal()
    assert farm.job(job_id).state == "queued"
    with frozen.transaction() as connection:  # goes on with another session
        renew(connection, claim)
    assert farm.job(job_id).state == "running"


def test_one_that_waits_for_the_store_may_rest(frozen):
    with frozen.transaction() as connection:
        let_rest(connection)
        time.sleep(2 * REST_SECONDS)
        assert connection.scalar(text("SELECT 1")) == 1  # its session is still there
