"""Keys that the farm makes itself: who finds them, and who does not."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from trtfarm.compose.embedded import Home
from trtfarm.compose.farm import AsyncFarm, Farm
from trtfarm.compose.parts import distributed_farm, require_doors
from trtfarm.compose.secrets import make_first_key, make_token, read_token
from trtfarm.compose.settings import ApiSettings
from trtfarm.contract.jobs import Scope
from trtfarm.contract.v1 import KeyView
from trtfarm.errors import AuthError, ConfigurationError
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_api.maintenance.uploads import UploadSweeper
from trtfarm_api.settings import ADMIN_KEY, ServerSettings
from trtfarm_db import schema
from trtfarm_db.engine import Database
from trtfarm_db.repositories.keys import KeyRepository
from trtfarm_db.settings import DatabaseSettings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the first key ---


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    opened = Database.open(DatabaseSettings.model_validate({"url": postgres_url}), "trtfarm-test")
    schema.upgrade(opened)
    yield opened
    opened.close()


def keys_of(database: Database) -> list[KeyView]:
    with database.transaction() as connection:
        return KeyRepository(connection).all()


def who(database: Database, path: Path) -> tuple[str, Scope]:
    with database.transaction() as connection:
        return KeyRepository(connection).check(path.read_text().strip())


def test_the_first_key(database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "staging" / ADMIN_KEY
    make_first_key(database, path)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    key_id, scope = who(database, path)
    assert scope is Scope.ADMIN
    assert caplog.text.count(str(path)) == 1
    assert path.read_text().strip() not in caplog.text
    make_first_key(database, path)
    assert [each.key_id for each in keys_of(database)] == [key_id]
    assert caplog.text.count(str(path)) == 1


def test_many_that_start_at_once_make_one(database: Database, tmp_path: Path) -> None:
    path = tmp_path / ADMIN_KEY
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: make_first_key(database, path), range(4)))
    assert len(keys_of(database)) == 1
    assert who(database, path)[1] is Scope.ADMIN
    assert [each.name for each in tmp_path.iterdir()] == [ADMIN_KEY]


def test_a_key_that_cannot_be_written_is_none(database: Database) -> None:
    with pytest.raises(ConfigurationError, match="/proc/none") as caught:
        make_first_key(database, Path("/proc/none/admin.key"))
    assert "trtfarm key create" in (caught.value.hint or "")
    assert keys_of(database) == []


def test_what_somebody_has_put_in_its_place(database: Database, tmp_path: Path) -> None:
    """A link is not followed, and nobody who has the file open reads the key."""
    path, elsewhere = tmp_path / ADMIN_KEY, tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    path.symlink_to(elsewhere)
    make_first_key(database, path)
    assert elsewhere.read_text() == "mine"
    assert not path.is_symlink()
    with database.transaction() as connection:
        KeyRepository(connection).revoke(keys_of(database)[0].key_id)
    path.chmod(0o666)
    with path.open() as watched:
        make_first_key(database, path)
        assert who(database, path)[1] is Scope.ADMIN
        assert watched.read().strip() != path.read_text().strip()
    assert mode(path) == 0o600


def test_it_survives_the_sweep_of_staging(database: Database, tmp_path: Path) -> None:
    path = tmp_path / ADMIN_KEY
    make_first_key(database, path)
    (tmp_path / "litter").write_text("x")
    long_ago = time.time() - 10 * 86400
    for each in tmp_path.iterdir():
        os.utime(each, (long_ago, long_ago))
    UploadSweeper(database, tmp_path, MaintenanceSettings()).run()
    assert [each.name for each in tmp_path.iterdir()] == [ADMIN_KEY]


def settings(url: str, folder: Path, **server: object) -> ApiSettings:
    document = {
        "database": {"url": url},
        "store": {"url": (folder / "artifacts").as_uri()},
        "redis": {"url": "redis://127.0.0.1:1/0"},
        "server": {"staging": folder / "staging", **server},
    }
    return ApiSettings.model_validate(document)


def test_keys_are_asked_for_on_loopback_too(database: Database, postgres_url: str, tmp_path: Path) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        with distributed_farm(settings(postgres_url, tmp_path, host=host)) as farm:
            assert farm.require_keys
    assert who(database, tmp_path / "staging" / ADMIN_KEY)[1] is Scope.ADMIN
    with distributed_farm(settings(postgres_url, tmp_path, require_keys=False)) as farm:
        assert not farm.require_keys


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "farm.example", ""])
def test_without_keys_on_loopback_only(postgres_url: str, tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback only") as caught:
        require_doors(ServerSettings(host=host, require_keys=False))
    assert "server.require_keys" in (caught.value.hint or "")
    keyless = settings(postgres_url, tmp_path, host=host, require_keys=False)
    with pytest.raises(ConfigurationError, match="loopback only"), distributed_farm(keyless):
        pass


# --- the embedded farm's ---


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def at(farm: Farm) -> httpx.Client:
    """A client of the farm's socket that knows nothing of its home."""
    assert farm.here is not None
    transport = httpx.HTTPTransport(uds=farm.here.where().socket)
    return httpx.Client(base_url="http://embedded.trtfarm", transport=transport)


def test_the_socket_asks_for_the_token(home: Home) -> None:
    with Farm(home=home.path, builds=False) as farm:
        assert farm.fleet().workers == ()
        token = home.token.read_text().strip()
        with at(farm) as stranger:
            for key in (
                None,
                "x",
                token[:-1],
                token + "0",
                token.upper(),
                "trtfarm_local_" + "0" * 64,
                "ключ",
            ):
                headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
                answer = stranger.get("/v1/fleet", headers=headers)
                assert (answer.status_code, key) == (401, key)
                assert "$TRTFARM_HOME/token" in answer.json()["hint"]
                assert str(home.path) not in answer.text
            answer = stranger.post("/v1/jobs/cancel", json={"everyones": True})
            assert answer.status_code == 401
            assert stranger.get("/v1/fleet", headers={"Authorization": f"Bearer {token}"}).is_success
            assert stranger.get("/v1/fleet", headers={"Host": "evil.example"}).status_code == 421


def test_nobody_else_reads_it(home: Home) -> None:
    with Farm(home=home.path, builds=False) as farm:
        farm.fleet()
        assert farm.here is not None
        socket = Path(farm.here.where().socket or "")
        assert (mode(home.path), mode(home.token), mode(socket.parent)) == (0o700, 0o600, 0o700)


def test_guests_of_the_same_home_get_in(home: Home) -> None:
    async def ask() -> None:
        async with AsyncFarm(home=home.path, builds=False) as guest:
            await guest.fleet()
            assert guest.here is not None
            assert guest.here.guest

    with Farm(home=home.path, builds=False) as farm, Farm(home=home.path, builds=False) as guest:
        farm.fleet()
        guest.fleet()
        assert guest.here is not None
        assert guest.here.guest
        asyncio.run(ask())


def test_the_token_stays(home: Home) -> None:
    tokens = set()
    for _ in range(2):
        with Farm(home=home.path, builds=False) as farm:
            farm.fleet()
            tokens.add(home.token.read_text())
    assert len(tokens) == 1


@pytest.mark.parametrize("spoil", ["others may read it", "empty", "half", "a link", "a folder's link"])
def test_a_token_that_is_none(home: Home, spoil: str) -> None:
    """Is not believed, and made anew."""
    home.path.mkdir()
    known = "trtfarm_local_" + "1" * 64
    if spoil == "a link":
        (home.path / "known").write_text(known)
        (home.path / "known").chmod(0o600)
        home.token.symlink_to("known")
    elif spoil == "a folder's link":
        home.token.symlink_to("/")
    else:
        home.token.write_text({"empty": "", "half": known[:20]}.get(spoil, known))
        home.token.chmod(0o644 if spoil.startswith("others") else 0o600)
    assert read_token(home.token) is None
    made = make_token(home.token)
    assert made != known
    assert read_token(home.token) == made
    assert mode(home.token) == 0o600


def test_a_farm_by_its_address_needs_the_token(home: Home) -> None:
    """As ``serve --embedded`` is for who has set TRTFARM_URL."""
    with Farm(home=home.path, builds=False) as farm:
        farm.fleet()
        assert farm.here is not None
        transport = httpx.HTTPTransport(uds=farm.here.where().socket)
        from trtfarm.sdk.client import FarmClient

        with (
            FarmClient("http://localhost", transport=transport) as stranger,
            pytest.raises(AuthError) as caught,
        ):
            stranger.fleet()
        assert "TRTFARM_API_KEY" in (caught.value.hint or "")
        key = home.token.read_text().strip()
        with FarmClient("http://localhost", key, httpx.HTTPTransport(uds=farm.here.where().socket)) as known:
            known.fleet()
