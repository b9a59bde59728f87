"""Names over digests, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests import values
from tests.integration.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.names import ModelName
from trtfarm.errors import ModelNotFoundError, NameNotFoundError
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_db.repositories.names import NameRepository

PROD = ModelName("detector:prod")
A = values.MODEL
B, C = (Digest.of_bytes(text) for text in (b"b", b"c"))


@contextmanager
def names(database: Database) -> Iterator[NameRepository]:
    with database.transaction() as connection:
        yield NameRepository(connection)


@pytest.fixture
def three(farm: Farm, database: Database) -> Database:
    for digest in (B, C):
        with database.transaction() as connection:
            ModelRepository(connection).add(ModelManifest(onnx=digest, onnx_size_bytes=3), values.INFO)
    return database


def move(database: Database, name: ModelName, model: Digest, by: str = "someone") -> bool:
    with names(database) as repository:
        return repository.move(name, model, by)


def test_a_name_moves_and_remembers(three: Database) -> None:
    assert move(three, PROD, A, "ci")
    assert not move(three, PROD, A), "it stands there already"
    assert move(three, PROD, B)
    with names(three) as repository:
        assert repository.digest(PROD) == B
        assert repository.digest(C) == C, "a digest is taken as it is"
        view = repository.get(PROD)
        repository.remove(PROD, "someone else")
    assert (view.model, [(each.previous, each.model) for each in view.moves or ()]) == (
        B,
        [(A, B), (None, A)],
    )
    assert [each.by for each in view.moves or ()] == ["someone", "ci"]
    with names(three) as repository:
        with pytest.raises(NameNotFoundError):
            repository.digest(PROD)
        gone = repository.get(PROD)
        assert gone.model is None
        assert gone.moves is not None
        assert (gone.moves[0].previous, gone.moves[0].model, gone.moves[0].by) == (B, None, "someone else")
    with pytest.raises(NameNotFoundError), names(three) as repository:
        repository.remove(PROD, "someone")
    assert move(three, PROD, C), "it can come back"


def test_what_is_not_there(three: Database) -> None:
    move(three, PROD, A)
    with pytest.raises(ModelNotFoundError), names(three) as repository:
        repository.move(PROD, Digest.of_bytes(b"nothing"), "someone")
    with names(three) as repository:
        with pytest.raises(NameNotFoundError) as caught:
            repository.digest(ModelName("detektor:prod"))
        assert "detector:prod" in (caught.value.hint or "")
        with pytest.raises(NameNotFoundError):
            repository.get(ModelName("detector"))
        assert repository.digest(PROD) == A


def test_lists(three: Database) -> None:
    for text, model in (("b:2", B), ("a:1", A), ("b:1", A), ("b", C)):
        move(three, ModelName(text), model)
    with names(three) as repository:
        listed = repository.page()
        assert [(each.reference, each.model) for each in listed] == [
            ("a:1", A),
            ("b:1", A),
            ("b:2", B),
            ("b:latest", C),
        ]
        assert repository.page(limit=2) == listed[:2]
        assert repository.page(after=listed[1].reference) == listed[2:]
        assert repository.page(name="b") == listed[1:]
        assert repository.page(model=A) == listed[:2]
        models = repository.models()
        assert [each.digest for each in models] == [C, B, A]
        assert [each.names for each in models] == [("b:latest",), ("b:2",), ("a:1", "b:1")]
        assert repository.models(after=C) == models[1:]
        assert repository.models(name="a") == [models[2]]


def test_moved_by_many_at_once(three: Database) -> None:
    """Every move tells what was there right before it, and the last one is what stands."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: move(three, PROD, (A, B, C)[number % 3]), range(24)))
    with names(three) as repository:
        view = repository.get(PROD)
        assert repository.digest(PROD) == view.model
    moves = (view.moves or ())[::-1]
    assert [each.previous for each in moves] == [None, *(each.model for each in moves[:-1])]
