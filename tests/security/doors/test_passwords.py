"""No command, error or log shows a password, whatever it was given and whoever does not answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from port_for import select_random
from sqlalchemy import make_url
from typer.testing import CliRunner

from tests import services
from tests.acceptance.farms import TRTFARM, run_cli
from tests.acceptance.processes import Process, clean_environment, running, wait_until
from trtfarm.cli.logs import DiscreetFormatter
from trtfarm.cli.main import app
from trtfarm.compose.settings import ApiSettings
from trtfarm.errors import ConfigurationError
from trtfarm.errors.discretion import discreet

PASSWORD = "Kn0wnS3cret"
NOBODY = "127.0.0.1:1"  # a port that nobody listens on
DATABASES = [
    f"postgresql+psycopg://u:{PASSWORD}@{NOBODY}/x",
    f"postgresql://u:{PASSWORD}@no-such-host.invalid/x",
    f"postgresql://u:{PASSWORD}/y@{NOBODY}/x",
    f"postgresql://u:y/{PASSWORD}@{NOBODY}/x",
    f"postgresql://u:a@{PASSWORD}@{NOBODY}/x",
    f"postgresql://u:{PASSWORD}#y@{NOBODY}/x",
    f"postgresql://u:{PASSWORD}@h:port/x",
    f"postgresql://u:{PASSWORD}@{NOBODY}/x?sslmode=bad",
    f"postgresql://u:{PASSWORD}@{NOBODY}/x?no_such_option=1",
    f"postgresql://{NOBODY}/x?user=u&password={PASSWORD}",
    f"mysql://u:{PASSWORD}@{NOBODY}/x",
    f"u:{PASSWORD}@{NOBODY}/x",
    f"sqlite://u:{PASSWORD}@{NOBODY}/x",
]
REDISES = [
    f"u:{PASSWORD}@h",
    f"redis://:{PASSWORD}@h:port/0",
    f"redis://:y/{PASSWORD}@h:1/0",
    f"http://u:{PASSWORD}@h",
]
STORES: list[tuple[str, object]] = [
    (f"s3://u:{PASSWORD}@b/x", {}),
    (f"s3://b/x?secret={PASSWORD}", {}),
    ("s3://b/x", f"{{{PASSWORD}"),
    ("s3://b/x", {"allow_invalid_certificates": PASSWORD}),
    ("s3://b/x", {"secret_acess_key": PASSWORD}),
    ("s3://b/x", {"secret_access_key": [PASSWORD]}),
    ("s3://b/x", {"proxy_url": f"u:{PASSWORD}@@{NOBODY}"}),
    ("s3://b/x", {"endpoint": f"http://u:{PASSWORD}@{NOBODY}:x"}),
]
FARMS = [
    f"http://u:{PASSWORD}@{NOBODY}",
    f"http://u:{PASSWORD}@{NOBODY}:port",
    f"ftp://u:{PASSWORD}@h",
    f"u:{PASSWORD}@h",
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TRTFARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRTFARM_STORE_URL", (tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("TRTFARM_DATABASE_URL", DATABASES[0])
    return monkeypatch


def silent(*command: str) -> None:
    """The command fails, with a word for people, and without the password."""
    done = CliRunner().invoke(app, command)
    assert done.exit_code not in {0, None}, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert done.output.strip()
    assert PASSWORD not in done.output
    assert PASSWORD.lower() not in done.output.lower()


@pytest.mark.parametrize("url", DATABASES)
def test_databases(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("TRTFARM_DATABASE_URL", url)
    for command in (["db", "upgrade"], ["db", "upgrade", "--json"], ["key", "list"], ["gc", "--json"]):
        silent(*command)


@pytest.mark.parametrize("url", REDISES)
def test_redises(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("TRTFARM_REDIS_URL", url)
    silent("key", "list", "--json")


@pytest.mark.parametrize(("url", "options"), STORES)
def test_stores(environment: pytest.MonkeyPatch, url: str, options: object, postgres_url: str) -> None:
    environment.setenv("TRTFARM_DATABASE_URL", postgres_url)
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    environment.setenv("TRTFARM_STORE_URL", url)
    environment.setenv("TRTFARM_STORE_OPTIONS", options if isinstance(options, str) else json.dumps(options))
    for command in (["gc"], ["scrub", "--json"]):
        silent(*command)


@pytest.mark.parametrize("url", FARMS)
def test_farms(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("TRTFARM_URL", url)
    for command in (["doctor"], ["doctor", "--json"], ["fleet"], ["fleet", "--json"]):
        silent(*command)


@pytest.mark.parametrize("command", ["serve", "worker", "db upgrade", "key list", "gc", "scrub"])
def test_commands_as_processes(tmp_path: Path, command: str) -> None:
    env = clean_environment() | {
        "TRTFARM_DATABASE_URL": DATABASES[0],
        "TRTFARM_REDIS_URL": f"redis://:{PASSWORD}@{NOBODY}/0",
        "TRTFARM_STORE_URL": (tmp_path / "artifacts").as_uri(),
        "TRTFARM_HOME": str(tmp_path / "home"),
    }
    done = run_cli(*command.split(), env=env)
    assert done.code == 5, done
    assert PASSWORD not in done.out + done.err


@contextmanager
def part(tmp_path: Path, name: str, url: str, **settings: str) -> Iterator[Process]:
    """With the password wherever one may be, and a Redis that is away."""
    env = clean_environment() | {
        "TRTFARM_DATABASE_URL": url,
        "TRTFARM_REDIS_URL": f"redis://:{PASSWORD}@{NOBODY}/0",
        "TRTFARM_STORE_URL": "s3://bucket/artifacts",
        "TRTFARM_STORE_OPTIONS": json.dumps(
            {
                "endpoint": f"http://u:{PASSWORD}@{NOBODY}",
                "allow_http": "true",
                "access_key_id": "id",
                "secret_access_key": PASSWORD,
            }
        ),
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "TRTFARM_HOME": str(tmp_path / "home"),
        "TRTFARM_SERVER_STAGING": str(tmp_path / "staging"),
        "TRTFARM_WORKER_SCRATCH": str(tmp_path / "scratch"),
        "TRTFARM_WORKER_SLOTS": "1",
        **settings,
    }
    with running([TRTFARM, name], env, tmp_path / f"{name}.log") as process:
        yield process


@pytest.fixture
def guarded_url(postgres_server: services.PostgresServer) -> Iterator[str]:
    """The URL of a database that takes any password, this one too."""
    with postgres_server.database() as url:
        whole = make_url(url).set(password=PASSWORD).render_as_string(hide_password=False)
        done = run_cli("db", "upgrade", env=clean_environment() | {"TRTFARM_DATABASE_URL": whole})
        assert done.code == 0, done
        yield whole


def test_the_log_of_a_server(tmp_path: Path, guarded_url: str) -> None:
    """Also of a store that does not answer; nor the key that it makes, but where that lies."""
    port = select_random()
    with part(tmp_path, "serve", guarded_url, TRTFARM_SERVER_PORT=str(port)) as server:

        def is_not_ready() -> bool:
            assert server.running, server.text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=120, trust_env=False).is_error
            except httpx.TransportError:
                return False

        wait_until("the API says that it is not ready", is_not_ready, 120)
        wait_until("the log tells why", lambda: "not ready" in server.text(), 60)
        text = server.text()
    key = (tmp_path / "staging/admin.key").read_text().strip()
    assert key.startswith("trtfarm_")
    assert key not in text
    assert text.count(str(tmp_path / "staging/admin.key")) == 1
    assert NOBODY in text  # it says who does not answer
    assert PASSWORD not in text


def test_the_log_of_a_worker(tmp_path: Path, guarded_url: str) -> None:
    with part(tmp_path, "worker", guarded_url) as worker:
        wait_until("Redis is missed", lambda: "annot connect" in worker.text() or not worker.running, 120)
        assert worker.running, worker.text()
        text = worker.text()
    assert NOBODY in text
    assert PASSWORD not in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("at redis://:pw@h:1/0 now", "at redis://***@h:1/0 now"),
        ("'postgresql://u:p@ss/w@h/x'", "'postgresql://***@h/x'"),
        ("http://h/x and nobody@example", "http://h/x and nobody@example"),
        ("host=h password=pw user=u", "host=h password=*** user=u"),
        ("https://h/x?X-Amz-Signature=abc&y=1", "https://h/x?X-Amz-Signature=***&y=1"),
        ("trtexec --tokens 3", "trtexec --tokens 3"),
    ],
)
def test_what_is_left_of_a_text(text: str, told: str) -> None:
    assert discreet(text) == told
    assert ConfigurationError(text).message == told


def test_tracebacks_in_logs() -> None:
    settings = ApiSettings.model_validate(
        {
            "database": {"url": "postgresql://u:p%40ss-word@h/x"},
            "store": {"url": "s3://b/x", "options": {"secret_access_key": "s3-secret", "region": "eu"}},
        }
    )
    formatter = DiscreetFormatter("%(message)s", settings.secrets())
    try:
        raise ValueError("p@ss-word, p%40ss-word and s3-secret in eu")
    except ValueError as error:
        told = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "redis://u:w@h failed", (), told)
    text = formatter.format(record).replace("raise ValueError", "")
    assert "ValueError: ***, *** and *** in eu" in text
    assert "redis://***@h failed" in text
