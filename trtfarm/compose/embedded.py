"""The farm in one process: SQLite, a folder, an in-process bell, the same agent and the same API."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trtfarm.contract.digest import Digest
from trtfarm.errors import ConfigurationError
from trtfarm.private_folder import private_file, private_folder

if TYPE_CHECKING:
    from trtfarm_api.farm import Farm
    from trtfarm_api.maintenance.settings import MaintenanceSettings
    from trtfarm_api.settings import ServerSettings
    from trtfarm_worker.agent import Agent
    from trtfarm_worker.settings import WorkerSettings


@dataclass(frozen=True)
class Home:
    """The folder of an embedded farm, ``$TRTFARM_HOME``."""

    path: Path

    @classmethod
    def default(cls) -> Home:
        from platformdirs import user_data_path

        chosen = os.environ.get("TRTFARM_HOME")
        return cls(Path(chosen) if chosen else user_data_path("trtfarm", appauthor=False))

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.path / 'farm.sqlite'}"

    def make(self) -> None:
        """The folders, and the database's file, for this user alone; SQLite's other files are made alike.

        Raises:
            ConfigurationError: another user may change what is in them.
        """
        for folder in (self.path, self.artifacts, self.staging, self.path / "scratch"):
            private_folder(folder, "TRTFARM_HOME")
        for suffix in ("", "-wal", "-shm"):
            path = self.path / f"farm.sqlite{suffix}"
            if not suffix or path.exists():
                private_file(path)

    @property
    def address(self) -> Path:
        """A file with the address of the process that runs the farm."""
        return self.path / "controller.json"

    @property
    def token(self) -> Path:
        """A file with the farm's one key."""
        return self.path / "token"

    @property
    def staging(self) -> Path:
        return self.path / "uploads"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    def artifact(self, digest: Digest) -> Path | None:
        path = self.artifacts / "sha256" / digest.hex[:2] / digest.hex[2:]
        return path if path.is_file() else None


@contextlib.contextmanager
def controller(home: Home) -> Iterator[None]:
    """Being the one process that runs this embedded farm.

    Raises:
        ConfigurationError: another process is, or another user may change what is in the home.
    """
    from filelock import FileLock, Timeout

    home.make()
    lock = FileLock(home.path / "controller.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigurationError(f"Another trtfarm runs in {home.path}.") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def reachable_at(home: Home, **where: str) -> Iterator[None]:
    """Tells other processes how to reach the controller: ``socket`` or ``url``."""
    home.address.write_text(json.dumps(where))
    try:
        yield
    finally:
        home.address.unlink(missing_ok=True)


@contextlib.contextmanager
def embedded_farm(
    home: Home,
    server: ServerSettings | None = None,
    worker: WorkerSettings | None = None,
    maintenance: MaintenanceSettings | None = None,
) -> Iterator[tuple[Farm, Crew]]:
    """The parts, without a worker started and without a port. Call it as the controller.

    Of ``worker``, all counts that is set, but for its runtime, GPU and scratch folder.
    """
    from trtfarm.compose.parts import farm
    from trtfarm.compose.secrets import make_token
    from trtfarm.ring import LocalBell
    from trtfarm.store import ArtifactStore, StoreSettings
    from trtfarm_api.settings import ServerSettings
    from trtfarm_db import schema
    from trtfarm_db.engine import Database
    from trtfarm_db.settings import DatabaseSettings
    from trtfarm_worker.agent import Agent
    from trtfarm_worker.settings import WorkerSettings

    server = (server or ServerSettings()).model_copy(update={"staging": home.staging})
    if "dispatch_seconds" not in server.model_fields_set:
        server = server.model_copy(update={"dispatch_seconds": 2.0})
    chosen = worker.model_dump(exclude_unset=True) if worker else {}
    with contextlib.ExitStack() as stack:
        database = Database.open(DatabaseSettings.model_validate({"url": home.database_url}), "trtfarm")
        stack.callback(database.close)
        schema.upgrade(database)
        store = ArtifactStore.open(StoreSettings(url=home.artifacts.resolve().as_uri()))
        bell = LocalBell()
        token = make_token(home.token) if server.require_keys else None
        parts = stack.enter_context(
            farm(
                server,
                database,
                store,
                bell,
                require_keys=server.require_keys,
                token=token,
                maintenance=maintenance,
            )
        )
        agents = []
        for runtime, gpu in workers_here():
            defaults = {"lease_seconds": 10, "heartbeat_seconds": 1, "idle_poll_seconds": 2}
            place = {"runtime": runtime, "gpu": gpu, "scratch": home.path / "scratch"}
            settings = WorkerSettings.model_validate(defaults | chosen | place)
            agents.append(Agent(settings=settings, database=database, store=store, bell=bell))
            bell.listen(agents[-1].wake)
        yield parts, Crew(tuple(agents))


def workers_here() -> list[tuple[Literal["tensorrt", "tensorrt-rtx"], str | None]]:
    """(TensorRT flavour, GPU) of the workers this machine can have: RTX needs no GPU, the other one each.

    ``TRTFARM_WORKER_GPU`` keeps to one of several GPUs.
    """
    found: list[tuple[Literal["tensorrt", "tensorrt-rtx"], str | None]] = []
    if importlib.util.find_spec("tensorrt_rtx"):
        found.append(("tensorrt-rtx", None))
    if importlib.util.find_spec("tensorrt") and _has_driver():
        from trtfarm.compose.machine import gpus

        chosen = os.environ.get("TRTFARM_WORKER_GPU")
        uuids = [chosen] if chosen else [device.uuid for device in gpus()]
        found += [("tensorrt", uuid) for uuid in uuids]
    return found


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Crew:
    """The workers of an embedded farm: one for each TensorRT that works here."""

    agents: tuple[Agent, ...]

    def start(self) -> None:
        """Raises ConfigurationError if TensorRT cannot be loaded, or there is none."""
        if not self.agents:
            raise ConfigurationError(
                "There is no TensorRT on this machine.",
                hint="pip install 'trtfarm[rtx]' builds without a GPU, 'trtfarm[gpu]' on one.",
            )
        for agent in self.agents:
            agent.start()

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A private folder with a short name: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="trtfarm-") as folder:
        yield Path(folder)
