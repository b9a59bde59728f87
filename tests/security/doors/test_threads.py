"""Strangers do not hold the threads that every route needs."""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Iterator

import pytest

from tests.integration.api.world import World, client
from tests.security.doors.raw import dial, head
from trtfarm.contract.jobs import Scope
from trtfarm.errors import UnavailableError
from trtfarm_api import auth
from trtfarm_api.auth import KeyCache
from trtfarm_api.routes import health
from trtfarm_db.repositories.keys import KeyRepository

MANY = 60  # more than there are threads for routes


@contextlib.contextmanager
def waiting(url: str, requests: list[bytes]) -> Iterator[None]:
    """They have been sent, and their answers have not come."""
    with contextlib.ExitStack() as stack:
        for request in requests:
            connection = stack.enter_context(dial(url))
            connection.sendall(request)
        yield


def test_readiness_of_a_database_that_hangs(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hang(farm: object) -> None:
        del farm
        begun.set()
        go_on.wait(120)
        raise UnavailableError

    monkeypatch.setattr(health, "_check", hang)
    try:
        with waiting(locked.url, [head("GET", "/readyz")] * MANY):
            assert begun.wait(60)
            assert locked.http.get("/v1/fleet").status_code == 200
    finally:
        go_on.set()


def test_keys_that_are_guessed(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked.farm.database.transaction() as connection:
        _, key = KeyRepository(connection).create("known", Scope.READ)
    monkeypatch.setattr(auth, "_CACHE_SECONDS", 3600.0)
    begun, go_on = threading.Event(), threading.Event()

    def hang(cache: KeyCache, guess: str) -> None:
        del cache, guess
        begun.set()
        go_on.wait(120)
        raise UnavailableError

    with client(locked.url, key) as http:
        assert http.get("/v1/fleet").status_code == 200
        monkeypatch.setattr(KeyCache, "_read", hang)
        guesses = [head("GET", "/v1/fleet", f"Authorization: Bearer {guess(n)}") for n in range(MANY)]
        try:
            with waiting(locked.url, guesses):
                assert begun.wait(60)
                assert http.get("/v1/fleet").status_code == 200
        finally:
            go_on.set()


def guess(number: int) -> str:
    body = f"trtfarm_{number:012x}_{'0' * 64}"
    return f"{body}_{zlib.crc32(body.encode()):08x}"


def test_what_is_no_key_is_not_looked_up(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyCache, "_read", None)
    for key in ("x", guess(1)[:-1] + "!", guess(1).upper(), "trtfarm_local_" + "0" * 64):
        with client(locked.url, key) as http:
            assert http.get("/v1/fleet").json()["code"] == "AUTH_INVALID"
