"""What every answer carries, what the pages fetch, and what strangers learn."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings

import pytest
from sqlalchemy import text

from tests.integration.api.world import World, client
from tests.security.doors.raw import Answer, exchange, head
from trtfarm import __version__
from trtfarm.sdk.aio import AsyncFarmClient
from trtfarm.sdk.client import FarmClient
from trtfarm.sdk.connection import PlainHttpWarning

KEY = "trtfarm_0123456789ab_x"


def key(locked: World) -> str:
    return f"Authorization: {locked.http.headers['authorization']}"


def check(answer: Answer) -> None:
    """What keeps a browser from making more of an answer than it is."""
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_every_answer_has_its_headers(locked: World) -> None:
    statuses = {
        200: head("GET", "/v1/fleet", key(locked)),
        401: head("GET", "/v1/fleet"),
        403: head("GET", "/v1/fleet", "Origin: null"),
        404: head("GET", "/nothing", key(locked)),
        405: head("DELETE", "/v1/fleet", key(locked)),
        414: head("GET", "/v1/fleet?" + "x" * 9000, key(locked)),
        415: head("POST", "/v1/jobs", key(locked), "Content-Length: 1") + b"x",
        421: head("GET", "/v1/fleet", host="evil.example"),
        431: head("GET", "/v1/fleet", *["X: y"] * 200),
        400: b"nonsense\r\n\r\n",
    }
    for status, request in statuses.items():
        answer = exchange(locked.url, request)
        assert answer.status == status
        check(answer)


def test_also_when_something_breaks(locked: World) -> None:
    with locked.farm.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE plans RENAME TO plans_away"))
    try:
        answer = exchange(locked.url, head("GET", "/v1/plans", key(locked)))
    finally:
        with locked.farm.database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE plans_away RENAME TO plans"))
    assert answer.status == 500
    check(answer)


def test_bytes_may_be_kept_by_who_may_see_them(locked: World) -> None:
    answer = locked.http.get(locked.built(b"a plan").content)
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_version_for_strangers(locked: World) -> None:
    for request in (
        head("GET", "/healthz"),
        head("GET", "/readyz"),
        head("GET", "/docs"),
        head("GET", "/openapi.json"),
        head("GET", "/v1/fleet", f"Authorization: Bearer {KEY}"),
        b"nonsense\r\n\r\n",
    ):
        answer = exchange(locked.url, request)
        told = f"{answer.headers}{answer.body!r}"
        assert __version__ not in told.replace("127.0.0.1", "")
        assert "uvicorn" not in told
    assert (
        exchange(locked.url, head("GET", "/v1/fleet", key(locked))).headers["trtfarm-version"] == __version__
    )
    assert locked.get("/openapi.json")["info"]["version"] == __version__


def test_readiness_tells_strangers_no_more(locked: World) -> None:
    """Not where the store is, nor which schema the database has."""
    root = locked.blob("sha256:" + "0" * 64).parents[2]
    away = root.with_name("away")
    root.rename(away)
    try:
        with client(locked.url) as stranger:
            answer = stranger.get("/readyz")
    finally:
        away.rename(root)
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert str(root) not in answer.text
    assert "hint" not in answer.json()


def test_the_page_for_people_fetches_nothing(locked: World) -> None:
    answer = locked.http.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.text
    assert "<script" not in page
    assert not re.search(r"\bon\w+=|javascript:|style=", page)
    assert not re.search(r"(?:src|href|action)=[\"'](?!#)", page)
    assert "@import" not in page
    assert "url(" not in page
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    for path in ("/v1/jobs", "/v1/uploads/{upload_id}", "JobRequest"):
        assert path in page
    for link in re.findall(r'href="#([^"]*)"', page):
        assert f'id="{link}"' in page


# --- the client ---


@pytest.mark.parametrize(
    "url", ["http://farm.example", "http://10.0.0.1:8420", "http://[fd00::1]", "HTTP://farm"]
)
def test_a_key_in_the_clear_is_warned_of(url: str) -> None:
    for kind in (FarmClient, AsyncFarmClient):
        with pytest.warns(PlainHttpWarning, match="unencrypted") as told:
            kind(url, KEY)
        assert KEY not in str(told[0].message)


@pytest.mark.parametrize(
    ("url", "api_key"),
    [
        ("https://farm.example", KEY),
        ("http://farm.example", None),
        ("http://localhost:8420", KEY),
        ("http://127.0.0.1", KEY),
        ("http://127.8.8.8", KEY),
        ("http://[::1]:8420", KEY),
    ],
)
def test_nothing_to_warn_of(url: str, api_key: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FarmClient(url, api_key).close()


def test_the_command_line_says_it_once(tmp_path) -> None:
    from tests.acceptance.farms import run_cli
    from tests.acceptance.processes import clean_environment

    env = clean_environment() | {"TRTFARM_HOME": str(tmp_path), "TRTFARM_URL": "http://farm.invalid"}
    done = run_cli("fleet", "--json", env=env | {"TRTFARM_API_KEY": KEY})
    assert done.code == 5
    assert done.error["code"] == "FARM_UNREACHABLE"
    assert done.err.count("warning: The API key goes to farm.invalid unencrypted") == 1
    assert KEY not in done.err
