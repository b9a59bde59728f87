"""Revisions of timing caches: nothing that was published is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.errors import NotFoundError
from trtfarm_db.engine import Database
from trtfarm_db.repositories.timing_caches import TimingCacheRepository

KEY = "ab" * 32
RUNTIME = "tensorrt-10.16.1.11"


def publish(database: Database, after: int, content: str = "", key: str = KEY) -> int | None:
    digest = Digest.of_bytes(f"{after}{content}".encode())
    with database.transaction() as connection:
        return TimingCacheRepository(connection).publish(
            key=key,
            after=after,
            blob=PublishedBlob(digest=digest, size_bytes=7, etag="1"),
            device=None,
            gpu="h200",
            runtime=RUNTIME,
            entries=after,
            job_id=None,
            worker_id="worker-1",
        )


def revision(database: Database) -> int:
    with database.transaction() as connection:
        head = TimingCacheRepository(connection).head(KEY)
    return head.revision if head else 0


def test_a_new_cache_starts_with_revision_one(farm: Farm) -> None:
    assert revision(farm.database) == 0
    assert publish(farm.database, 0) == 1
    assert revision(farm.database) == 1


def test_whoever_started_from_an_older_revision_is_told(farm: Farm) -> None:
    publish(farm.database, 0)
    assert publish(farm.database, 1) == 2
    assert publish(farm.database, 1, "late") is None
    assert revision(farm.database) == 2


def test_of_many_at_once_each_gets_a_revision_of_its_own(farm: Farm) -> None:
    """Read, combine, publish, again on conflict: what a worker does."""

    def until_published(number: int) -> int:
        while True:
            published = publish(farm.database, revision(farm.database), str(number))
            if published is not None:
                return published

    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(until_published, range(32)))
    assert sorted(published) == list(range(1, 33))
    assert revision(farm.database) == 32


def test_history_is_kept_and_found_by_the_first_digits(farm: Farm) -> None:
    for after in range(3):
        publish(farm.database, after)
    publish(farm.database, 0, key="cd" * 32)
    with farm.database.transaction() as connection:
        caches = TimingCacheRepository(connection)
        assert [each.revision for each in caches.history("abab")] == [3, 2, 1]
        assert {each.key: each.revision for each in caches.heads()} == {KEY: 3, "cd" * 32: 1}
        with pytest.raises(NotFoundError):
            caches.history("ef")


def test_a_rollback_is_a_new_revision_with_old_content(farm: Farm) -> None:
    for after in range(3):
        publish(farm.database, after)
    with farm.database.transaction() as connection:
        caches = TimingCacheRepository(connection)
        first = caches.history(KEY)[-1]
        rolled = caches.rollback(KEY[:8], 1)
        assert (rolled.revision, rolled.digest) == (4, first.digest)
        with pytest.raises(NotFoundError):
            caches.rollback(KEY, 9)
