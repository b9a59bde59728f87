"""What a claim reads and a renewal writes, in PostgreSQL's own counts: neither grows with the queues."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from tests import values
from tests.integration.farm import Farm
from tests.integration.test_turns import OTHER, QUEUES, key, submit
from trtfarm.contract.leases import RetryPolicy
from trtfarm_db.repositories.leases import LeaseRepository

JOBS = 20_000
COPY = """
INSERT INTO jobs (id, kind, state, build_key, queue, model_digest, gpu, runtime, spec, timeout_seconds,
                  priority, quota, fence, attempt, crashes, available_at, created_at)
SELECT 'copy-' || n, kind, state, md5(build_key || n), CASE n % 2 WHEN 0 THEN queue ELSE :other END,
       model_digest, gpu, runtime, spec, timeout_seconds, priority,
       CASE n % 20 WHEN 0 THEN :quota ELSE '' END, fence, attempt, crashes, available_at, created_at
FROM jobs, generate_series(1, :count) AS n WHERE id = :id
"""
READ = """
SELECT pg_stat_get_xact_tuples_returned('jobs'::regclass)
       + sum(pg_stat_get_xact_tuples_returned(indexrelid))
FROM pg_index WHERE indrelid = 'jobs'::regclass
"""
IN_PLACE = "SELECT pg_stat_get_xact_tuples_hot_updated('jobs'::regclass)"

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def long_queues(farm: Farm) -> Farm:
    """Two queues with many jobs, some of them of a key that may have one running; and that one runs."""
    first = farm.submit(0)
    principal = key(farm, 1)
    submit(farm, principal, 1, target=OTHER)
    assert farm.claim(queues=[OTHER.queue]) is not None
    bound = {"other": OTHER.queue, "quota": principal, "count": JOBS, "id": first}
    with farm.database.transaction() as connection:
        connection.execute(text(COPY), bound)
    with farm.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    return farm


def leases(connection: Connection) -> LeaseRepository:
    return LeaseRepository(connection, lease_seconds=60, policy=RetryPolicy())


def count(connection: Connection, statement: str) -> int:
    """Since a time of PostgreSQL's own choice: only differences mean something."""
    return int(connection.execute(text(statement)).scalar_one())


@pytest.mark.parametrize("oldest", [False, True])
def test_a_claim_reads_the_heads_of_its_queues(long_queues, oldest):
    with long_queues.database.transaction() as connection:
        before = count(connection, READ)
        assert leases(connection).claim(QUEUES, "worker-1", oldest=oldest) is not None
        assert 0 < count(connection, READ) - before < JOBS / 20


def test_a_renewal_writes_into_no_index(long_queues):
    claim = long_queues.claim(queues=[values.QUEUE])
    in_place = 0
    for _ in range(20):
        with long_queues.database.transaction() as connection:
            before = count(connection, IN_PLACE)
            leases(connection).renew(claim, "worker-1", None)
            in_place += count(connection, IN_PLACE) - before
    assert 15 <= in_place <= 20  # all but those that find their page full
