"""The table of who gets in: every route, and everybody who may call it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from fastapi import APIRouter

import trtfarm_api.routes
from tests.integration.api.test_auth import routes
from tests.integration.api.world import World, client, problem
from tests.security.doors.raw import exchange, head
from trtfarm.contract.jobs import Scope
from trtfarm.contract.v1 import VERSION_HEADER
from trtfarm_api.auth import PUBLIC
from trtfarm_api.documents import DocumentRoute
from trtfarm_db.repositories.keys import KeyRepository

NEEDS = {
    "public": """
        GET /healthz
        GET /readyz
    """,
    "read": """
        GET /docs
        GET /metrics
        GET /openapi.json
        GET /v1/artifacts/{digest}
        HEAD /v1/artifacts/{digest}
        GET /v1/benchmarks
        GET /v1/campaigns
        GET /v1/campaigns/{campaign}
        GET /v1/coverage
        GET /v1/fleet
        GET /v1/jobs
        GET /v1/jobs/{job_id}
        GET /v1/jobs/{job_id}/events
        GET /v1/jobs/{job_id}/log
        GET /v1/models
        GET /v1/models/{model}
        HEAD /v1/models/{model}
        GET /v1/names
        GET /v1/names/{reference}
        GET /v1/orders
        GET /v1/orders/{order}
        GET /v1/orders/{order}/report
        GET /v1/plans
        GET /v1/plans/{digest}
        GET /v1/plans/{digest}/content
        HEAD /v1/plans/{digest}/content
        POST /v1/plans/resolve
        GET /v1/timing-caches
        GET /v1/timing-caches/{key}
        GET /v1/timing-caches/{key}/content
    """,
    "submit": """
        DELETE /v1/names/{reference}
        DELETE /v1/orders/{order}
        GET /v1/uploads/{upload_id}
        HEAD /v1/uploads/{upload_id}
        PATCH /v1/uploads/{upload_id}
        POST /v1/campaigns
        POST /v1/campaigns/{campaign}/cancel
        POST /v1/campaigns/{campaign}/fill
        POST /v1/jobs
        POST /v1/jobs/cancel
        POST /v1/jobs/{job_id}/cancel
        POST /v1/jobs/{job_id}/prioritize
        POST /v1/jobs/{job_id}/retry
        POST /v1/orders
        POST /v1/uploads
        PUT /v1/names/{reference}
    """,
    "admin": """
        POST /v1/timing-caches
        POST /v1/timing-caches/{key}/rollback
    """,
}
TABLE = {tuple(line.split()): needs for needs, lines in NEEDS.items() for line in lines.strip().splitlines()}
CALLERS = ("no key", "read", "submit", "admin", "revoked", "foreign origin", "foreign host")


@dataclass(frozen=True)
class Callers:
    url: str
    http: httpx.Client
    keys: dict[str, str]

    def key(self, who: str) -> str | None:
        return self.keys.get("admin" if who.startswith("foreign") else who)

    def ask(self, who: str, method: str, path: str) -> httpx.Response:
        """With a body that is a document, but not one that any route takes."""
        headers = {"Host": "farm.evil.example"} if who == "foreign host" else {}
        if key := self.key(who):
            headers["Authorization"] = f"Bearer {key}"
        if who == "foreign origin":
            headers["Origin"] = "https://evil.example"
        options = {"json": {"surplus": 1}} if method in {"POST", "PUT", "PATCH"} else {}
        return self.http.request(method, path, headers=headers, **options)


@pytest.fixture(scope="module")
def callers(locked: World) -> Iterator[Callers]:
    made = {}
    with locked.farm.database.transaction() as connection:
        keys = KeyRepository(connection)
        for scope in Scope:
            _, made[scope.value] = keys.create("table", scope)
        gone, made["revoked"] = keys.create("table", Scope.ADMIN)
        keys.revoke(gone)
    with client(locked.url) as http:
        yield Callers(locked.url, http, made)


def expected(needs: str, who: str) -> tuple[int, str] | None:
    """Status and code of a refusal; None for who gets in."""
    if who == "foreign host":
        return 421, "HOST_REFUSED"
    if who == "foreign origin":
        return 403, "ORIGIN_REFUSED"
    if needs == "public":
        return None
    if who == "no key":
        return 401, "AUTH_REQUIRED"
    if who == "revoked":
        return 401, "KEY_REVOKED"
    return None if Scope(who).includes(Scope(needs)) else (403, "SCOPE_MISSING")


EVERY = pytest.mark.parametrize(
    ("method", "path"), [pytest.param(*each, id=" ".join(each)) for each in TABLE]
)


@EVERY
def test_who_gets_in(callers: Callers, method: str, path: str) -> None:
    needs = TABLE[method, path]
    for who in CALLERS:
        answer = callers.ask(who, method, address(path))
        refusal = expected(needs, who)
        if refusal is None:
            assert answer.status_code < 500, (who, answer.text)
            assert answer.status_code not in {401, 403, 421}, (who, answer.text)
        elif method == "HEAD":
            assert answer.status_code == refusal[0], who
        else:
            problem(answer, *refusal)
        stranger = needs == "public" or (refusal is not None and refusal[1] != "SCOPE_MISSING")
        assert (VERSION_HEADER in answer.headers) is not stranger, who


def address(path: str) -> str:
    return re.sub(r"\{\w+\}", "x", path)


def test_the_table_has_every_route() -> None:
    assert set(TABLE) == set(routes())


@pytest.mark.parametrize("path", ["/", "/v1", "/nothing", "/redoc", "/docs/", "/healthz/", "//healthz"])
def test_what_is_no_route_is_not_told_to_strangers(callers: Callers, path: str) -> None:
    problem(callers.ask("no key", "GET", path), 401, "AUTH_REQUIRED")


@EVERY
def test_nothing_of_a_body_is_read_before(callers: Callers, method: str, path: str) -> None:
    """The server says "100 Continue" when somebody reads, and the body never comes."""
    for who in CALLERS:
        refusal = expected(TABLE[method, path], who)
        if refusal is None:
            continue
        lines = ["Content-Type: application/json", "Content-Length: 100000", "Expect: 100-continue"]
        if key := callers.key(who):
            lines.append(f"Authorization: Bearer {key}")
        if who == "foreign origin":
            lines.append("Origin: https://evil.example")
        host = "farm.evil.example" if who == "foreign host" else "localhost"
        answer = exchange(callers.url, head(method, address(path), *lines, host=host))
        assert answer.status == refusal[0], who


def test_a_route_that_declares_nothing_is_no_route() -> None:
    router = APIRouter(route_class=DocumentRoute)

    def open_to_all() -> None: ...

    declare = router.get("/v1/new")
    with pytest.raises(TypeError, match="needs a scope"):
        declare(open_to_all)
    assert "/v1/new" not in PUBLIC


def test_every_router_checks() -> None:
    """What is no ``DocumentRoute`` would check nothing."""
    for module in pkgutil.iter_modules(trtfarm_api.routes.__path__):
        router = importlib.import_module(f"trtfarm_api.routes.{module.name}").router
        assert all(isinstance(route, DocumentRoute) for route in router.routes), module.name
