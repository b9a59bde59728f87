"""Uploads under way: announced, resumed, completed, and each its caller's own."""

from __future__ import annotations

import pytest

from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ExternalFile
from trtfarm.contract.v1 import UploadRequest
from trtfarm.errors import NotFoundError
from trtfarm_db.repositories.uploads import UploadRepository

WEIGHTS = ExternalFile(location="w/weights é.bin", digest=Digest.of_bytes(b"weights"), size_bytes=2**40)
MORE = ExternalFile(location="more.bin", digest=Digest.of_bytes(b"more"), size_bytes=0)
PLAIN = UploadRequest(digest=Digest.of_bytes(b"model"), size_bytes=5)
RICH = PLAIN.model_copy(update={"external_data": (WEIGHTS, MORE)})


@pytest.fixture
def ask(database):
    """Calls one method of the repository in a transaction of its own."""

    def call(name, *arguments):
        with database.transaction() as connection:
            return getattr(UploadRepository(connection), name)(*arguments)

    return call


@pytest.mark.parametrize("request_", [PLAIN, RICH, PLAIN.model_copy(update={"kind": "external_data"})])
def test_what_was_announced_comes_back(ask, request_):
    upload = ask("create", request_, "alice")
    assert ask("get", upload, "alice") == (request_, False)
    ask("complete", upload)
    assert ask("get", upload, "alice") == (request_, True)


def test_an_upload_is_its_callers_own(ask):
    upload = ask("create", PLAIN, "alice")
    with pytest.raises(NotFoundError, match=upload):
        ask("get", upload, "bob")
    assert ask("find_open", PLAIN, "bob") is None


def test_an_upload_that_is_not_there(ask):
    with pytest.raises(NotFoundError, match="start a new one"):
        ask("get", "no-such-upload", "alice")


def test_an_open_upload_of_the_same_file_is_resumed(ask):
    assert ask("find_open", PLAIN, "alice") is None
    first = ask("create", PLAIN, "alice")
    assert ask("find_open", PLAIN, "alice") == first
    newer = ask("create", PLAIN, "alice")
    assert ask("find_open", PLAIN, "alice") == newer
    ask("complete", newer)
    assert ask("find_open", PLAIN, "alice") == first
    ask("complete", first)
    assert ask("find_open", PLAIN, "alice") is None


@pytest.mark.parametrize(
    "other",
    [
        {"digest": Digest.of_bytes(b"other")},
        {"size_bytes": 6},
        {"kind": "external_data"},
        {"external_data": ()},
        {"external_data": (WEIGHTS,)},
        {"external_data": (WEIGHTS, MORE.model_copy(update={"size_bytes": 1}))},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_an_upload_of_something_else_is_not(ask, other):
    upload = ask("create", RICH, "alice")
    assert ask("find_open", RICH, "alice") == upload
    assert ask("find_open", RICH.model_copy(update=other), "alice") is None


def test_completing_twice_is_completing_once(ask):
    upload, other = ask("create", PLAIN, "alice"), ask("create", PLAIN, "alice")
    ask("complete", upload)
    ask("complete", upload)
    assert ask("get", upload, "alice")[1]
    assert not ask("get", other, "alice")[1]
