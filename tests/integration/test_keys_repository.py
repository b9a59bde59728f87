"""API keys: what is valid, what is kept, what is refused."""

from __future__ import annotations

import re
import zlib

import pytest
from sqlalchemy import select, update

from trtfarm.contract.jobs import Scope
from trtfarm.errors import AuthError, KeyRevokedError, NotFoundError
from trtfarm_db.base import db_now
from trtfarm_db.models import ApiKey
from trtfarm_db.repositories.keys import KeyRepository


@pytest.fixture
def ask(database):
    """Calls one method of the repository in a transaction of its own."""

    def call(name, *arguments):
        with database.transaction() as connection:
            return getattr(KeyRepository(connection), name)(*arguments)

    return call


def with_checksum(body):
    return f"{body}_{zlib.crc32(body.encode('utf-8', 'surrogatepass')):08x}"


@pytest.mark.parametrize("scope", Scope)
def test_a_key(ask, scope):
    key_id, key = ask("create", "ci", scope)
    assert re.fullmatch(r"trtfarm_[0-9a-f]{12}_[0-9a-f]{64}_[0-9a-f]{8}", key)
    assert key == with_checksum(key.rpartition("_")[0])
    assert ask("check", key) == (key_id, scope)
    [view] = ask("all")
    assert (view.key_id, view.name, view.scope, view.revoked_at) == (key_id, "ci", scope, None)


def test_keys_are_never_alike(ask):
    keys = {ask("create", "same name", Scope.READ) for _ in range(20)}
    assert len({key_id for key_id, _ in keys}) == len({key.split("_")[2] for _, key in keys}) == 20
    assert [view.created_at for view in ask("all")] == sorted(view.created_at for view in ask("all"))


def test_the_secret_is_not_kept(ask, database):
    _, key = ask("create", "ci", Scope.ADMIN)
    with database.transaction() as connection:
        row = connection.execute(select(ApiKey)).one()
    assert key.split("_")[2] not in str(row)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: "",
        lambda key: "trtfarm",
        lambda key: "trtfarm___",
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key + "\n",
        lambda key: " " + key,
        lambda key: key.upper(),
        lambda key: key.replace("trtfarm_", "other_"),
        lambda key: key.rpartition("_")[0],
        lambda key: key[:-8] + "00000000",
        lambda key: with_checksum(key.replace("trtfarm_", "other_").rpartition("_")[0]),
        lambda key: with_checksum(key.rpartition("_")[0].upper()),
        lambda key: with_checksum("trtfarm__"),
        lambda key: with_checksum("trtfarm_a\x00b_c"),
        lambda key: with_checksum("trtfarm_' OR 1=1 --_c"),
        lambda key: with_checksum("trtfarm_\N{SNOWMAN}_\N{SNOWMAN}"),
        lambda key: with_checksum("trtfarm_\ud800_\ud800"),
        lambda key: with_checksum(f"trtfarm_{'0' * 12}_{'0' * 64}"),
        lambda key: with_checksum(f"trtfarm_{key.split('_')[1]}_{'0' * 64}"),
        lambda key: with_checksum(f"trtfarm_{'0' * 12}_{key.split('_')[2]}"),
        lambda key: with_checksum(f"trtfarm_{key.split('_')[1]}_"),
    ],
)
def test_what_is_not_a_key_of_this_farm(ask, change):
    _, key = ask("create", "ci", Scope.ADMIN)
    with pytest.raises(AuthError) as refusal:
        ask("check", change(key))
    assert refusal.value.code == "AUTH_INVALID"
    assert key not in str(refusal.value)
    assert [view.last_used_at for view in ask("all")] == [None]


def test_a_revoked_key(ask):
    key_id, key = ask("create", "ci", Scope.SUBMIT)
    other_id, other = ask("create", "laptop", Scope.READ)
    assert ask("any_active")
    ask("revoke", key_id)
    with pytest.raises(KeyRevokedError):
        ask("check", key)
    assert ask("check", other) == (other_id, Scope.READ)
    assert ask("any_active")
    ask("revoke", other_id)
    assert not ask("any_active")


def test_revoking_again_changes_nothing(ask):
    key_id, _ = ask("create", "ci", Scope.SUBMIT)
    ask("revoke", key_id)
    before = ask("all")
    ask("revoke", key_id)
    assert ask("all") == before


def test_a_key_that_is_not_there(ask):
    with pytest.raises(NotFoundError, match="no API key 000000000000"):
        ask("revoke", "000000000000")
    assert ask("all") == []
    assert not ask("any_active")


def test_the_last_use_is_noted_now_and_then(ask, database):
    key_id, key = ask("create", "ci", Scope.READ)
    assert ask("all")[0].last_used_at is None
    ask("check", key)
    first = ask("all")[0].last_used_at
    assert first is not None
    ask("check", key)
    assert ask("all")[0].last_used_at == first
    with database.transaction() as connection:
        connection.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=db_now(-61)))
    ask("check", key)
    last = ask("all")[0].last_used_at
    assert last is not None
    assert last >= first
