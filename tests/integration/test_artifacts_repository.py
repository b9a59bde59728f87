"""Blobs, models and plans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from tests import values
from tests.together import together
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.contract.models import ExternalFile, ModelManifest
from trtfarm.errors import ModelNotFoundError, NotFoundError
from trtfarm_db.models import Artifact, Model
from trtfarm_db.repositories.artifacts import ArtifactRemovedError

BLOB = values.blob("weights")
L4 = values.TARGET.model_copy(update={"gpu": "l4", "runtime": "tensorrt-8.6.0"})


def add(farm, blob, kind="model"):
    with farm.artifacts() as artifacts:
        artifacts.add(blob, kind)


def find(farm, blob):
    with farm.artifacts() as artifacts:
        return artifacts.find(blob.digest)


def row(farm, blob):
    with farm.database.transaction() as connection:
        return connection.execute(select(Artifact).where(Artifact.digest == str(blob.digest))).one()


def count(farm, table):
    with farm.database.transaction() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


# --- blobs ---


def test_a_blob(farm):
    assert find(farm, BLOB) is None
    add(farm, BLOB)
    found = find(farm, BLOB)
    assert found == BLOB
    assert type(found.digest) is Digest
    assert row(farm, BLOB).kind == "model"


def test_a_blob_may_be_empty_or_larger_than_any_disk(farm):
    for size in (0, 2**62):
        blob = PublishedBlob(digest=Digest.of_bytes(str(size).encode()), size_bytes=size, etag="e")
        add(farm, blob)
        assert find(farm, blob) == blob


def test_a_known_blob_gets_the_new_etag(farm):
    add(farm, BLOB)
    before = row(farm, BLOB)
    again = BLOB.model_copy(update={"etag": "another"})
    add(farm, again, "plan")
    after = row(farm, BLOB)
    assert find(farm, BLOB) == again
    assert (after.kind, after.created_at) == (before.kind, before.created_at)
    assert after.verified_at > before.verified_at
    assert count(farm, Artifact) == 1


def test_a_blob_that_was_read_again(farm):
    other = values.blob("other")
    add(farm, BLOB)
    add(farm, other)
    before = row(farm, BLOB)
    with farm.artifacts() as artifacts:
        artifacts.verified(BLOB.digest, "etag after a restore")
    after = row(farm, BLOB)
    assert (after.etag, after.size_bytes) == ("etag after a restore", BLOB.size_bytes)
    assert after.verified_at > before.verified_at
    assert find(farm, other) == other


def test_a_blob_that_is_gone(farm):
    """Who publishes it anew must put it while nobody can remove it."""
    other = values.blob("other")
    add(farm, BLOB)
    add(farm, other)
    for _ in range(2):
        with farm.artifacts() as artifacts:
            artifacts.remove(BLOB.digest)
        assert find(farm, BLOB) is None
        assert find(farm, other) == other
    with pytest.raises(ArtifactRemovedError) as removed:
        add(farm, BLOB)
    assert removed.value.digests == {BLOB.digest}
    with farm.artifacts() as artifacts:
        artifacts.hold([BLOB.digest])
        artifacts.restored(BLOB)
    assert find(farm, BLOB) == BLOB
    add(farm, BLOB)


def test_32_threads_that_publish_one_blob(farm):
    outcomes = together([lambda: add(farm, BLOB)] * 32)
    assert outcomes == [None] * 32
    assert count(farm, Artifact) == 1


def test_a_verification_does_not_bring_a_removed_blob_back(farm):
    with farm.artifacts() as artifacts:
        artifacts.verified(BLOB.digest, "etag")
    assert find(farm, BLOB) is None


# --- models ---

WITH_WEIGHTS = ModelManifest(
    onnx=values.MODEL,
    onnx_size_bytes=5,
    external_data=tuple(
        ExternalFile(location=location, digest=Digest.of_bytes(location.encode()), size_bytes=2**40)
        for location in ("b/weights.bin", "a.bin", "gewichte é.bin")
    ),
)


def test_a_model(farm):
    with farm.models() as models:
        model = models.get(values.MODEL)
    assert (model.digest, model.size_bytes, model.external_data) == (values.MODEL, 5, ())
    assert (model.inputs, model.outputs) == (values.INFO.inputs, values.INFO.outputs)
    assert (model.opsets, model.ir_version, model.node_count) == ({"ai.onnx": 21}, 10, 7)
    assert abs(model.created_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_model_with_external_data_is_another_model(farm):
    with farm.models() as models:
        models.add(WITH_WEIGHTS, values.INFO)
    with farm.models() as models:
        assert models.manifest(WITH_WEIGHTS.digest) == WITH_WEIGHTS
        assert models.manifest(values.MODEL) == values.MANIFEST
        model = models.get(WITH_WEIGHTS.digest)
    assert model.external_data == WITH_WEIGHTS.external_data
    assert model.size_bytes == 5 + 3 * 2**40


def test_a_model_that_is_known_stays_as_it_is(farm):
    with farm.models() as models:
        before = models.get(values.MODEL)
        models.add(values.MANIFEST, values.INFO.model_copy(update={"node_count": 8}))
        assert models.get(values.MODEL) == before


def test_threads_that_add_one_model(farm):
    def add_model():
        with farm.models() as models:
            models.add(WITH_WEIGHTS, values.INFO)

    assert together([add_model] * 16) == [None] * 16
    assert count(farm, Model) == 2


def test_a_model_that_is_not_there(farm):
    unknown = Digest.of_bytes(b"never uploaded")
    with farm.models() as models:
        with pytest.raises(ModelNotFoundError, match=unknown):
            models.get(unknown)
        with pytest.raises(ModelNotFoundError):
            models.manifest(unknown)


# --- plans ---


def build(farm, number, text, target=values.TARGET):
    job = farm.create(values.spec(number, target=target))
    claim = farm.claim(queues=[target.queue])
    farm.finish(claim, values.result(text))
    return job.job_id


def page(farm, **query):
    with farm.plans() as plans:
        return [plan.job_id for plan in plans.page(**query)]


def test_a_plan_by_its_digest_is_the_newest_with_those_bytes(farm):
    build(farm, 0, "same")
    newer = build(farm, 1, "same")
    build(farm, 2, "other")
    with farm.plans() as plans:
        plan = plans.get(values.blob("same").digest)
    assert plan.job_id == newer
    assert plan.config == values.spec(1).config
    assert plan == farm.job(newer).plan


def test_a_plan_that_is_not_there(farm):
    with farm.plans() as plans, pytest.raises(NotFoundError, match="no plan sha256:"):
        plans.get(values.MODEL)


def test_pages_are_newest_first_and_fit_together(farm):
    assert page(farm) == []
    ids = [build(farm, number, f"plan {number}") for number in range(5)][::-1]
    assert page(farm) == ids
    assert page(farm, limit=2) == ids[:2]
    assert page(farm, limit=2, before=ids[1]) == ids[2:4]
    assert page(farm, before=ids[-1]) == []


def test_pages_of_some_plans(farm):
    first = build(farm, 0, "first")
    second = build(farm, 1, "second", target=L4)
    assert page(farm, gpus=["l4"]) == page(farm, runtime="tensorrt-8.6.0") == [second]
    assert page(farm, gpus=[values.TARGET.gpu]) == page(farm, runtime=values.TARGET.runtime) == [first]
    assert page(farm, model=values.MODEL) == [second, first]
    assert page(farm, model=Digest.of_bytes(b"other")) == []
    assert page(farm, gpus=["l4"], runtime=values.TARGET.runtime) == []
