"""Names that somebody else makes point here, pages of others, and proxies before a farm without keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api.world import client, open_farm, serving
from tests.security.doors.raw import exchange, head
from trtfarm.contract.v1 import EMBEDDED_HOST
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api.doors import _own_address
from trtfarm_api.settings import ServerSettings


@pytest.fixture(scope="module")
def keyless(
    farm_url: str, tmp_path_factory: pytest.TempPathFactory, inspection: InspectionPool
) -> Iterator[str]:
    """The URL of a farm without keys: what is refused here is refused for its form."""
    farm = open_farm(farm_url, tmp_path_factory.mktemp("farm"), inspection, hosts=["Farm.example", "fd00::1"])
    with serving(farm) as url:
        yield url
    farm.database.close()


def ask(url: str, *lines: str, host: str | None = "localhost", method: str = "GET") -> tuple[int, str]:
    answer = exchange(url, head(method, "/v1/fleet", *lines, host=host))
    return answer.status, "" if answer.status == 200 else answer.code


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "localhost.", "localhost:8420", "127.0.0.1", "127.0.0.1:80", "[::1]",
        "[::1]:8420", "[0:0:0:0:0:0:0:1]", "farm.example", "FARM.EXAMPLE.:443", "[fd00::1]",
        "[FD00:0::1]:8420",
    ],
)  # fmt: skip
def test_names_of_the_farm(keyless: str, host: str) -> None:
    assert ask(keyless, host=host) == (200, "")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "farm.example.evil.example", "evil.example:8420", "localhost.evil.example",
        "localhost.localdomain", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::]",
        "[::ffff:127.0.0.1]", "10.0.0.1", "embedded.trtfarm", "xn--localhost", "farm.example_", "_",
    ],
)  # fmt: skip
def test_names_of_others(keyless: str, host: str) -> None:
    assert ask(keyless, host=host) == (421, "HOST_REFUSED")


@pytest.mark.parametrize(
    "host",
    [
        "", " ", "localhost evil.example", "localhost,evil.example", "user@localhost", "localhost/",
        "localhost:", "localhost:x", "localhost:123456", "[::1", "::1", "[localhost]", "localhost%00",
        "http://localhost", "locälhost", "localhost\t", f"{'x' * 300}",
    ],
)  # fmt: skip
def test_what_is_no_host(keyless: str, host: str) -> None:
    status, code = ask(keyless, host=host)
    assert (status, code) in {(422, "VALIDATION_ERROR"), (400, "INVALID_REQUEST"), (200, "")}
    assert status != 200 or host.strip() == "localhost"


def test_hosts_said_twice_or_not_at_all(keyless: str) -> None:
    assert ask(keyless, "Host: evil.example") == (422, "VALIDATION_ERROR")
    assert ask(keyless, "Host: localhost") == (422, "VALIDATION_ERROR")
    assert ask(keyless, host=None) == (422, "VALIDATION_ERROR")
    assert exchange(keyless, b"GET /v1/fleet HTTP/1.0\r\n\r\n").status == 422


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/v1/fleet",
        "http://localhost/v1/fleet",
        "//evil.example/v1/fleet",
        "*",
        "localhost:80",
    ],
)
def test_a_host_in_the_request_line(keyless: str, target: str) -> None:
    """It would count for more than the header, and no route would know of it."""
    for method in ("GET", "POST", "OPTIONS", "CONNECT"):
        answer = exchange(keyless, head(method, target, "Content-Length: 0"))
        assert answer.status in {400, 404, 405}, (method, answer)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "line",
    [
        "Origin: https://evil.example", "Origin: null", "Origin: ", "Origin: http://localhost:3000",
        "Origin: file://", "Origin: https://localhost", "Origin: http://localhost@evil.example",
        "Origin: http://localhost evil", "Origin: chrome-extension://localhost:8420",
        "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: CROSS-SITE",
        "Sec-Fetch-Site: anything",
    ],
)  # fmt: skip
def test_pages_of_others(keyless: str, line: str, method: str) -> None:
    answer = exchange(keyless, head(method, "/v1/fleet", line, "Content-Length: 0", host="localhost:8420"))
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
    if method != "HEAD":
        assert answer.code == "ORIGIN_REFUSED"


def test_a_form_of_another_page(keyless: str) -> None:
    """What a browser sends for <form method=post enctype=text/plain>, also an old one that tells no site."""
    for more in ([], ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]):
        lines = ["Origin: https://evil.example", "Content-Type: text/plain", "Content-Length: 0", *more]
        answer = exchange(keyless, head("POST", "/v1/campaigns/nightly/cancel", *lines))
        assert (answer.status, answer.code) == (403, "ORIGIN_REFUSED")


@pytest.mark.parametrize(
    ("host", "lines"),
    [
        ("localhost:8420", ["Origin: http://localhost:8420", "Sec-Fetch-Site: same-origin"]),
        ("localhost", ["Origin: http://localhost"]),
        ("farm.example", ["Origin: https://farm.example", "Sec-Fetch-Site: same-origin"]),
        ("farm.example:443", ["Origin: https://FARM.example"]),
        ("[::1]:8420", ["Origin: http://[::1]:8420"]),
        ("localhost", ["Sec-Fetch-Site: none"]),
        ("localhost", []),
    ],
)
def test_pages_of_its_own_and_programs(keyless: str, host: str, lines: list[str]) -> None:
    """Behind a proxy with TLS, the page's scheme is another one than the farm's."""
    assert ask(keyless, *lines, host=host) == (200, "")


@pytest.mark.parametrize(
    "line",
    [
        "Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https",
        "x-forwarded-host: a", "X-Forwarded: 1", "X-Forwarded-Anything: 1", "X-Real-IP: 192.0.2.1",
        "Via: 1.1 proxy", "X-Client-IP: 1",
    ],
)  # fmt: skip
def test_a_proxy_in_front_of_a_farm_without_keys(keyless: str, line: str) -> None:
    """Behind it, loopback is the internet."""
    for path in ("/v1/fleet", "/healthz"):
        answer = exchange(keyless, head("GET", path, line))
        assert (answer.status, answer.code) == (403, "PROXY_WITHOUT_KEYS")
        assert "server.require_keys" in answer.document["hint"]


def test_a_proxy_in_front_of_a_farm_with_keys(locked) -> None:
    key = locked.http.headers["authorization"]
    lines = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", f"Authorization: {key}"]
    assert exchange(locked.url, head("GET", "/v1/fleet", *lines)).status == 200


def test_what_a_foreign_name_is_told(keyless: str) -> None:
    """Which setting it is; and no more of the name than fits in a line."""
    answer = exchange(keyless, head("GET", "/healthz", host="a" * 200 + ".example"))
    assert "server.hosts" in answer.document["hint"]
    assert len(answer.document["detail"]) < 200


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("127.0.0.1", {"localhost", "127.0.0.1", "::1"}),
        ("0.0.0.0", {"localhost", "127.0.0.1", "::1"}),
        ("::", {"localhost", "127.0.0.1", "::1"}),
        ("10.0.0.5", {"localhost", "127.0.0.1", "::1", "10.0.0.5"}),
        ("farm.example", {"localhost", "127.0.0.1", "::1", "farm.example"}),
    ],
)
def test_names_without_a_setting(host: str, accepted: set[str]) -> None:
    assert set(ServerSettings(host=host).accepted_hosts) == accepted


def test_the_address_of_a_connection_is_a_name_too() -> None:
    """Clients may call a farm that listens everywhere by its address; no name server can lead there."""
    assert _own_address({"server": ("10.0.0.5", 8420)}) == "10.0.0.5"
    assert _own_address({"server": ("/run/farm/api", None)}) == EMBEDDED_HOST


def test_misspelt_names_are_refused_in_the_settings() -> None:
    for name in ("http://farm.example", "farm.example:8420", "*", "", "a b"):
        with pytest.raises(ValueError, match="hosts"):
            ServerSettings(hosts=[name])


def test_no_route_is_left_out(keyless: str, tmp_path: Path) -> None:
    del tmp_path
    with client(keyless) as http:
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/metrics", "/nothing", "/v1/plans"):
            assert http.get(path, headers={"Host": "evil.example"}).status_code == 421, path
            assert http.get(path, headers={"Origin": "null"}).status_code == 403, path
