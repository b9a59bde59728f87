"""Garbage collection, on both databases and a store on disk: what is needed stays, what is not goes."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from tests import values
from tests.integration.farm import Farm
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import BenchmarkWork, PublishedBlob
from trtfarm.contract.models import ExternalFile, ModelManifest
from trtfarm.contract.v1 import UploadRequest
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_api.maintenance.garbage import GarbageCollector
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_db.base import db_now
from trtfarm_db.models import Artifact, Attempt, Plan, TimingCache
from trtfarm_db.repositories.artifacts import ArtifactRemovedError, ModelRepository
from trtfarm_db.repositories.jobs import NewJob
from trtfarm_db.repositories.timing_caches import TimingCacheRepository
from trtfarm_db.repositories.uploads import UploadRepository

HOURS = 3600.0
OLD = 100 * HOURS
_serial = itertools.count()


class Yard:
    """A farm with a store, and a collector for each grace."""

    def __init__(self, farm: Farm, folder: Path) -> None:
        self.farm = farm
        self.folder = folder
        self.content: dict[Digest, bytes] = {}
        self.store = ArtifactStore.open(StoreSettings(url=folder.as_uri()))

    def collector(self, grace_hours: float = 72, **settings: float) -> GarbageCollector:
        return GarbageCollector(
            self.farm.database, self.store, MaintenanceSettings(grace_hours=grace_hours, **settings)
        )

    def put(self, data: bytes | None = None, *, age_seconds: float = 0) -> PublishedBlob:
        """In the store alone."""
        digest, stored = self.store.put_bytes(data or os.urandom(100))
        path = self.path(digest)
        if age_seconds:
            os.utime(path, (time.time() - age_seconds,) * 2)
            found = self.store.stat(digest)
            assert found is not None
            stored = found
        return PublishedBlob(digest=digest, size_bytes=stored.size_bytes, etag=stored.etag)

    def added(self, *, age_seconds: float = OLD, kind: str = "plan") -> PublishedBlob:
        """An artifact that nothing refers to."""
        blob = self.put(age_seconds=age_seconds)
        with self.farm.artifacts() as artifacts:
            artifacts.add(blob, kind)
        self.age(blob, age_seconds)
        return blob

    def age(self, blob: PublishedBlob, seconds: float = OLD) -> None:
        with self.farm.database.transaction() as connection:
            connection.execute(
                update(Artifact)
                .where(Artifact.digest == str(blob.digest))
                .values(touched_at=db_now(-seconds))
            )

    def path(self, digest: Digest) -> Path:
        return self.folder / "sha256" / digest.hex[:2] / digest.hex[2:]

    def there(self, blob: PublishedBlob) -> bool:
        return self.path(blob.digest).exists()

    def known(self, blob: PublishedBlob) -> bool:
        with self.farm.artifacts() as artifacts:
            return artifacts.find(blob.digest) is not None

    def state(self, blob: PublishedBlob) -> str | None:
        with self.farm.database.transaction() as connection:
            return connection.execute(
                select(Artifact.state).where(Artifact.digest == str(blob.digest))
            ).scalar_one_or_none()

    def publish(self, blob: PublishedBlob) -> int:
        """Makes a timing cache refer to it, as a worker does. Returns how often it was put again."""
        again = 0
        while True:
            try:
                with self.farm.database.transaction() as connection:
                    self.refer(TimingCacheRepository(connection), blob)
                return again
            except ArtifactRemovedError as error:
                blob = self.restore(error, blob.digest)
                again += 1

    def restore(self, error: ArtifactRemovedError, digest: Digest) -> PublishedBlob:
        with self.farm.artifacts() as artifacts:
            artifacts.hold(error.digests)
            blob = self.put(self.content[digest])
            artifacts.restored(blob)
        return blob

    @staticmethod
    def refer(caches: TimingCacheRepository, blob: PublishedBlob, key: str | None = None) -> str:
        key = key or f"{next(_serial):064x}"
        caches.publish(
            key=key, after=0, blob=blob, device=None, runtime="tensorrt-8.6.0", gpu="l4",
            entries=None, job_id=None, worker_id=None,
        )  # fmt: skip
        return key


@pytest.fixture
def yard(farm: Farm, tmp_path: Path) -> Yard:
    return Yard(farm, tmp_path / "artifacts")


def test_what_nothing_refers_to_goes_after_the_grace(yard: Yard) -> None:
    old, young = yard.added(age_seconds=73 * HOURS), yard.added(age_seconds=71 * HOURS)
    planned = yard.collector().look()
    assert (planned.artifacts, planned.size_bytes) == (1, old.size_bytes)
    assert yard.there(old)
    assert yard.known(old)
    done = yard.collector().run()
    assert (done.artifacts, done.size_bytes) == (1, old.size_bytes)
    assert (yard.there(old), yard.known(old)) == (False, False)
    assert (yard.there(young), yard.known(young)) == (True, True)
    assert yard.collector().run().artifacts == 0


def _a_plan(yard: Yard) -> list[PublishedBlob]:
    yard.farm.submit(7)
    claim = yard.farm.claimed()
    plan, io, log = (yard.added() for _ in range(3))
    yard.farm.finish(claim, values.result().model_copy(update={"plan": plan, "io": io, "log": log}))
    return [plan, io, log]


def _a_failed_attempt(yard: Yard) -> list[PublishedBlob]:
    yard.farm.submit(8)
    log = yard.added(kind="log")
    yard.farm.fail(yard.farm.claimed(), values.failure(Outcome.FAILED, log=log))
    return [log]


def _a_timing_cache(yard: Yard) -> list[PublishedBlob]:
    blob = yard.added()
    with yard.farm.database.transaction() as connection:
        yard.refer(TimingCacheRepository(connection), blob)
    return [blob]


def _a_benchmark(yard: Yard) -> list[PublishedBlob]:
    """With an input from a file."""
    given = yard.added(kind="input")
    plan = values.blob("plan")
    options = BenchmarkOptions(inputs={"x": given.digest})
    work = BenchmarkWork(
        plan=plan.digest, plan_size_bytes=4, options=options, input_sizes={"x": given.size_bytes}
    )
    with yard.farm.jobs() as jobs:
        assert jobs.create(NewJob(values.spec(9), 0, 60.0, benchmark=work, gpu="l4"))
    return [given]


def _a_model(yard: Yard) -> list[PublishedBlob]:
    onnx, weights = yard.added(kind="model"), yard.added(kind="external_data")
    with yard.farm.database.transaction() as connection:
        ModelRepository(connection).add(
            ModelManifest(
                onnx=onnx.digest, onnx_size_bytes=onnx.size_bytes, external_data=(_external(weights),)
            ),
            values.INFO,
        )
    return [onnx, weights]


def _an_open_upload(yard: Yard) -> list[PublishedBlob]:
    weights = yard.added(kind="external_data")
    request = UploadRequest(digest=values.MODEL, size_bytes=5, external_data=(_external(weights),))
    with yard.farm.database.transaction() as connection:
        UploadRepository(connection).create(request, "alice")
    return [weights]


def _external(blob: PublishedBlob) -> ExternalFile:
    return ExternalFile(location="w", digest=blob.digest, size_bytes=blob.size_bytes)


REFERENCES: list[Callable[[Yard], list[PublishedBlob]]] = [
    _a_plan, _a_failed_attempt, _a_timing_cache, _a_benchmark, _a_model, _an_open_upload,
]  # fmt: skip


@pytest.mark.parametrize("make", REFERENCES, ids=lambda make: make.__name__[1:])
def test_what_something_refers_to_stays(yard: Yard, make: Callable[[Yard], list[PublishedBlob]]) -> None:
    kept, loose = make(yard), yard.added()
    for blob in kept:
        yard.age(blob)
    assert yard.collector().look().artifacts == 1
    assert yard.collector().run().artifacts == 1
    assert all(yard.there(blob) and yard.known(blob) for blob in kept)
    assert not yard.there(loose)


@pytest.mark.parametrize("make", [_a_plan, _a_failed_attempt], ids=lambda make: make.__name__[1:])
def test_logs_stay_for_as_long_as_they_should(
    yard: Yard, make: Callable[[Yard], list[PublishedBlob]]
) -> None:
    *others, log = make(yard)
    for blob in (log, *others):
        yard.age(blob)
    with yard.farm.database.transaction() as connection:
        ended = {"ended_at": db_now(-20 * 24 * HOURS)}
        connection.execute(update(Attempt).values(ended))
        connection.execute(update(Plan).values(created_at=db_now(-20 * 24 * HOURS)))
    assert yard.collector(log_days=0).run().artifacts == 0
    assert yard.collector(log_days=21).run().artifacts == 0
    assert yard.collector(log_days=19).run().artifacts == 1
    assert (yard.there(log), all(map(yard.there, others))) == (False, True)


def test_every_column_that_names_an_artifact_is_a_reference() -> None:
    """Who adds such a column to a table must think of the garbage collector."""
    from trtfarm_db.base import Base
    from trtfarm_db.repositories.garbage import _LOGS, _REFERENCES

    others = {
        "artifacts.digest", "models.digest", "uploads.digest", "plans.model_digest",
        "benchmarks.model_digest", "jobs.model_digest", "model_files.model_digest",
        "campaign_cells.model_digest", "uploaded_files.digest",
        "model_tags.model_digest", "model_tag_moves.model_digest", "model_tag_moves.previous_digest",
    }  # fmt: skip
    named = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith("digest")
    }
    columns = [*_REFERENCES, *(column for column, _ in _LOGS)]
    assert named - others == {f"{column.class_.__table__.name}.{column.name}" for column in columns}


# --- blobs without a row ---


def test_a_blob_that_no_row_names_goes_after_the_grace(yard: Yard) -> None:
    old, young = yard.put(age_seconds=73 * HOURS), yard.put(age_seconds=71 * HOURS)
    planned = yard.collector().look()
    assert (planned.artifacts, planned.size_bytes, planned.unknown) == (1, old.size_bytes, 1)
    assert yard.state(old) is None
    done = yard.collector().run()
    assert (done.artifacts, done.unknown) == (1, 1)
    assert (yard.there(old), yard.there(young)) == (False, True)


def test_a_needed_blob_whose_row_was_lost_is_found_again(yard: Yard) -> None:
    """As when it was taken for missing while the disk was not mounted."""
    (blob,) = _a_timing_cache(yard)
    os.utime(yard.path(blob.digest), (time.time() - OLD,) * 2)
    with yard.farm.artifacts() as artifacts:
        artifacts.remove(blob.digest)
    assert not yard.known(blob)
    yard.collector().run()
    assert yard.there(blob)
    assert yard.known(blob)


def test_files_that_killed_writers_left(yard: Yard) -> None:
    incoming = yard.folder / "incoming"
    incoming.mkdir(parents=True)
    for name, age_seconds in (("old", 25 * HOURS), ("young", 1 * HOURS)):
        (incoming / name).write_bytes(b"part")
        os.utime(incoming / name, (time.time() - age_seconds,) * 2)
    assert yard.collector().run().temporary_bytes == 4
    assert [path.name for path in incoming.iterdir()] == ["young"]


# --- a collector that dies, and a writer that comes in between ---


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up."""


@contextmanager
def killed() -> Iterator[None]:
    with pytest.raises(Killed):
        yield


def _die(*_: object) -> None:
    raise Killed


def _until_marked(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert yard.collector().mark() == 1


def _until_unlinked(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction that would have said so is rolled back."""
    from trtfarm_db.repositories.garbage import GarbageRepository

    with monkeypatch.context() as patch, killed():
        patch.setattr(GarbageRepository, "removed", _die)
        yard.collector().run()


def _until_removed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    from trtfarm_db.repositories.garbage import GarbageRepository

    with monkeypatch.context() as patch, killed():
        patch.setattr(GarbageRepository, "forget", _die)
        yard.collector().run()


STAGES = [_until_marked, _until_unlinked, _until_removed]
stages = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__[1:])


@stages
def test_a_run_that_was_killed_is_finished_by_the_next(
    yard: Yard, stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = yard.added()
    stage(yard, monkeypatch)
    assert not yard.known(blob)
    yard.collector().run()
    assert (yard.there(blob), yard.state(blob)) == (False, "gone")
    yard.age(blob)
    yard.collector().run()
    assert yard.state(blob) is None


@stages
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_of_the_same_bytes(
    yard: Yard, stage: Callable[..., None], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It puts the blob before or after the collector comes by, and commits after that."""
    blob = yard.added()
    data = yard.path(blob.digest).read_bytes()
    yard.content = {blob.digest: data}
    if when == "before":
        blob = yard.put(data)
    stage(yard, monkeypatch)
    if when == "after":
        blob = yard.put(data)
    assert yard.publish(blob) == 1
    assert yard.there(blob)
    yard.age(blob)
    yard.collector().run()
    assert yard.store.read(blob.digest) == data
    assert yard.known(blob)


def test_external_data_that_goes_while_its_model_comes_is_missed(yard: Yard) -> None:
    blob = yard.added()
    yard.collector().run()
    with pytest.raises(ArtifactRemovedError) as removed, yard.farm.artifacts() as artifacts:
        artifacts.touch([blob.digest])
    assert removed.value.digests == {blob.digest}


# --- all at once ---

WRITERS, CONTENTS, SECONDS = 3, 4, 5.0


@pytest.mark.parametrize("seed", [1])
def test_writers_and_collectors_at_once(yard: Yard, seed: int) -> None:
    """Without any grace: whatever somebody refers to is in the store for as long as they do."""
    data = {Digest.of_bytes(each): each for each in (bytes([n]) * 50 for n in range(CONTENTS))}
    yard.content = data
    end = time.monotonic() + SECONDS
    done, collected, problems = [0] * WRITERS, [0, 0], []

    def write(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        while time.monotonic() < end:
            digest = chance.choice(list(data))
            key = f"{number:064x}"
            blob = yard.put(data[digest])
            try:
                with yard.farm.database.transaction() as connection:
                    yard.refer(TimingCacheRepository(connection), blob, key)
            except ArtifactRemovedError as error:
                yard.restore(error, digest)
                continue
            time.sleep(chance.random() / 50)
            if not yard.path(digest).exists() or yard.path(digest).read_bytes() != data[digest]:
                problems.append(f"{digest} is needed and gone")
            with yard.farm.database.transaction() as connection:
                connection.execute(delete(TimingCache).where(TimingCache.key == key))
            done[number] += 1

    def collect(number: int) -> None:
        while time.monotonic() < end:
            collected[number] += yard.collector(grace_hours=0).run().artifacts
            time.sleep(0.01)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    threads += [threading.Thread(target=collect, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert sum(done) > 0
    assert sum(collected) > 0
