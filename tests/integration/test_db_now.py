"""The database's clock, and datetimes on both back ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import literal, select

from trtfarm_db.base import UtcDateTime, db_now
from trtfarm_db.models import Upload

SECOND = timedelta(seconds=1)


def ask(database, expression):
    with database.transaction() as connection:
        return connection.execute(select(expression)).scalar_one()


def test_it_is_the_time_of_day(database):
    now = ask(database, db_now())
    assert now.tzinfo is UTC
    assert abs(now - datetime.now(UTC)) < SECOND


@pytest.mark.parametrize("seconds", [0.2, -0.2, 1, 60.0, -60.0, 0.001, 86400.0, -86400.0 * 365, 1e8])
def test_offsets(database, seconds):
    """One after another through one cached statement: each with its own offset."""
    assert abs(ask(database, db_now(seconds)) - datetime.now(UTC) - timedelta(seconds=seconds)) < SECOND


def test_it_goes_on_within_a_transaction(database):
    with database.transaction() as connection:
        first = connection.execute(select(db_now())).scalar_one()
        while connection.execute(select(db_now())).scalar_one() == first:
            assert datetime.now(UTC) - first < 5 * SECOND


@pytest.mark.parametrize(("earlier", "later"), [(-0.5, 0), (0, 0.5), (-3600, -3599), (0.25, 1e5)], ids=str)
def test_times_of_the_database_compare(database, earlier, later):
    assert ask(database, db_now(earlier) < db_now(later))
    assert not ask(database, db_now(later) < db_now(earlier))


@pytest.mark.parametrize("micros", [0, 1, 123_000, 123_456, 999_999])
def test_times_of_python_compare_with_those_of_the_database(database, micros):
    past = (datetime.now(UTC) - 3 * SECOND).replace(microsecond=micros)
    assert ask(database, literal(past, UtcDateTime()) < db_now())
    assert ask(database, literal(past + 7 * SECOND, UtcDateTime()) > db_now())


@pytest.mark.parametrize(
    "zone", [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=8))]
)
def test_times_come_back_as_utc_and_whole(database, zone):
    at = datetime(2026, 11, 21, 23, 59, 59, 123_456, tzinfo=zone)
    row = {"id": "1", "principal": "me", "digest": "d", "size_bytes": 1, "kind": "model", "external_data": []}
    row |= {"created_at": at, "completed_at": None}
    with database.transaction() as connection:
        connection.execute(Upload.__table__.insert().values(row))
        created, completed = connection.execute(select(Upload.created_at, Upload.completed_at)).one()
    assert (created, created.utcoffset(), completed) == (at, timedelta(0), None)
