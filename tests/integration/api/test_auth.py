"""Who may do what on a farm that needs API keys."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
import zlib
from collections.abc import Callable

import httpx
import pytest
from fastapi.routing import APIRoute

import trtfarm_api.routes
from tests.integration.api.conftest import Caller
from tests.integration.api.world import World, client, onnx_model, problem
from trtfarm.contract.jobs import Scope
from trtfarm_api import auth
from trtfarm_api.app import create_app
from trtfarm_api.settings import ServerSettings
from trtfarm_db.repositories.keys import KeyRepository

OPEN = {"/healthz", "/readyz"}


def routes() -> list[tuple[str, str]]:
    """(method, path) of every route there is, in the schema or not."""
    found = []
    for module in pkgutil.iter_modules(trtfarm_api.routes.__path__):
        router = importlib.import_module(f"trtfarm_api.routes.{module.name}").router
        for route in router.routes:
            assert isinstance(route, APIRoute)
            found += [(method, route.path_format) for method in sorted(route.methods)]
    return found


def test_all_routes_are_known(locked: World) -> None:
    """The application has nothing beyond its routers. Mounted ones would need a look."""
    app = create_app(locked.farm)
    known = {path for _, path in routes()}
    beside = {getattr(route, "path_format", None) for route in app.routes} - {None} - known
    assert beside == set()
    assert set(app.openapi()["paths"]) <= {path for _, path in routes()}


@pytest.mark.parametrize(("method", "path"), routes())
def test_no_route_answers_without_a_key(locked: World, caller: Caller, method: str, path: str) -> None:
    address = re.sub(r"\{\w+\}", "x", path)
    for headers in ({}, {"Authorization": "Basic dTpw"}, {"Authorization": "Bearer"}):
        for body in (None, {"json": {}}, {"content": b"x" * 100}):
            answer = caller().request(method, address, headers=headers, **(body or {}))
            if path in OPEN:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 401, answer.text
                assert answer.headers["www-authenticate"] == 'Bearer realm="trtfarm"'
                if method != "HEAD":
                    problem(answer, 401, "AUTH_REQUIRED")


@pytest.mark.parametrize("path", sorted(OPEN))
def test_open_pages(caller: Caller, path: str) -> None:
    assert caller().get(path).status_code == 200


def test_nothing_is_read_of_an_upload_without_a_key(caller: Caller) -> None:
    problem(caller().patch("/v1/uploads/x", content=bytes(10 << 20)), 401, "AUTH_REQUIRED")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1],
        lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"),
        lambda key: key + "_x",
        lambda key: key.upper(),
        lambda key: key.replace("trtfarm", "other"),
        lambda key: key.replace("_", "-"),
        lambda _: "x",
        lambda _: "___",
        lambda _: "sk-" + "a" * 10_000,
        lambda key: _checked(key.rpartition("_")[0][:-1] + "g"),
        lambda key: _checked("trtfarm_0123456789ab_" + key.split("_")[2]),
        lambda _: _checked("trtfarm_' OR 1=1_x"),
    ],
)
def test_keys_that_are_none(locked: World, caller: Caller, spoil: Callable[[str], str]) -> None:
    """Malformed, misspelt, or well-formed and not known."""
    key = locked.http.headers["authorization"].removeprefix("Bearer ")
    answer = caller(key=spoil(key)).get("/v1/fleet")
    problem(answer, 401, "AUTH_INVALID")
    assert answer.headers["www-authenticate"]


def test_a_key_of_strange_bytes(locked: World) -> None:
    headers = {"Authorization": b"Bearer " + _checked("trtfarm_\xff_\xfe").encode("latin-1")}
    problem(httpx.get(f"{locked.url}/v1/fleet", headers=headers, trust_env=False), 401, "AUTH_INVALID")


def _checked(body: str) -> str:
    return f"{body}_{zlib.crc32(body.encode()):08x}"


def test_scopes(caller: Caller) -> None:
    reader, submitter, admin = (caller(scope) for scope in (Scope.READ, Scope.SUBMIT, Scope.ADMIN))
    for path in ("/v1/jobs", "/v1/plans", "/v1/fleet", "/metrics"):
        for each in (reader, submitter, admin):
            assert each.get(path).status_code == 200
    body = {"digest": "sha256:" + "0" * 64, "size_bytes": 1}
    calls = (
        ("POST", "/v1/uploads", {"json": body}),
        ("GET", "/v1/uploads/x", {}),
        ("PATCH", "/v1/uploads/x", {"content": b"x"}),
        ("POST", "/v1/jobs", {"json": {"model": body["digest"], "target": {"gpu": "l4"}}}),
        ("POST", "/v1/jobs/x/cancel", {}),
        ("POST", "/v1/jobs/x/retry", {}),
    )
    for method, path, options in calls:
        document = problem(reader.request(method, path, **options), 403, "SCOPE_MISSING")
        assert "submit" in document["detail"]
        for each in (submitter, admin):
            assert each.request(method, path, **options).status_code in {200, 201, 404}


def test_a_revoked_key(locked: World) -> None:
    with locked.farm.database.transaction() as connection:
        key_id, key = KeyRepository(connection).create("short-lived", Scope.READ)
        KeyRepository(connection).revoke(key_id)
    with client(locked.url, key) as http:
        problem(http.get("/v1/fleet"), 401, "KEY_REVOKED")


def test_a_key_revoked_while_in_use(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works for a few seconds more at most."""
    assert auth._CACHE_SECONDS <= 5
    monkeypatch.setattr(auth, "_CACHE_SECONDS", 0.2)
    with locked.farm.database.transaction() as connection:
        key_id, key = KeyRepository(connection).create("leaked", Scope.READ)
    with client(locked.url, key) as http:
        assert http.get("/v1/fleet").status_code == 200
        with locked.farm.database.transaction() as connection:
            KeyRepository(connection).revoke(key_id)
        time.sleep(0.3)
        problem(http.get("/v1/fleet"), 401, "KEY_REVOKED")


def test_uploads_of_others(caller: Caller) -> None:
    """Not their offsets, not their existence; and each has an upload of the same file for himself."""
    one, other, data = caller(Scope.SUBMIT), caller(Scope.ADMIN), onnx_model()
    from trtfarm.contract.digest import Digest

    body = {"digest": Digest.of_bytes(data), "size_bytes": len(data)}
    mine = one.post("/v1/uploads", json=body).json()["upload_id"]
    one.patch(f"/v1/uploads/{mine}", content=data[:50])
    problem(other.get(f"/v1/uploads/{mine}"), 404, "NOT_FOUND")
    problem(other.patch(f"/v1/uploads/{mine}", content=data), 404, "NOT_FOUND")
    theirs = other.post("/v1/uploads", json=body)
    assert (theirs.status_code, theirs.json()["offset"]) == (201, 0)
    assert theirs.json()["upload_id"] != mine
    assert one.get(f"/v1/uploads/{mine}").json()["offset"] == 50
    rest = one.patch(f"/v1/uploads/{mine}", content=data[50:], headers={"Upload-Offset": "50"})
    assert rest.json()["complete"]


def test_idempotency_keys_of_others(locked: World, caller: Caller) -> None:
    """The same word of two people is two keys."""
    first, second = locked.request(), locked.request()
    for each, request in ((caller(Scope.SUBMIT), first), (caller(Scope.SUBMIT), second)):
        answer = each.post("/v1/jobs", json=request, headers={"Idempotency-Key": "one"})
        assert answer.status_code == 201, answer.text


def test_a_whole_build_with_a_key(locked: World) -> None:
    plan = locked.built(b"behind a lock")
    assert locked.http.get(plan.content).content == plan.data


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("farm.example", False),
        ("localhost.example", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert ServerSettings(host=host).loopback is loopback
