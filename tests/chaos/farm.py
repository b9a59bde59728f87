"""A farm whose children are ours: on PostgreSQL and Redis with GPU workers, or embedded on SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from port_for import select_random
from pydantic import SecretStr

from tests.acceptance.farms import HOST, TRTFARM
from tests.acceptance.processes import clean_environment
from tests.chaos.parts import Part
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db.engine import Database
from trtfarm_db.settings import DatabaseSettings

NVML = Path(__file__).with_name("nvml")
# A second here is about a minute of a real farm.
SCALED = {
    "TRTFARM_WORKER_HEARTBEAT_SECONDS": "0.2",
    "TRTFARM_WORKER_LEASE_SECONDS": "1",
    "TRTFARM_WORKER_IDLE_POLL_SECONDS": "0.5",
    "TRTFARM_WORKER_RETRY": '{"backoff_seconds": 0.1}',
    "TRTFARM_WORKER_DRAIN_SECONDS": "10",
    "TRTFARM_SERVER_LEASE_SECONDS": "1",
    "TRTFARM_SERVER_DISPATCH_SECONDS": "0.2",
    "TRTFARM_SERVER_RETRY": '{"backoff_seconds": 0.1}',
    # What nothing refers to goes at once: worse than a real farm, where it has days.
    "TRTFARM_MAINTENANCE_PERIOD_SECONDS": "1",
    "TRTFARM_MAINTENANCE_GRACE_HOURS": "0",
}


@dataclass(frozen=True)
class Gpu:
    """``product`` as NVML names it; ``slug`` as a target does."""

    uuid: str
    product: str = "NVIDIA L4"
    slug: str = "l4"


@dataclass
class ChaosFarm:
    """Attributes:
    database_url, redis_url: as its processes get them; a proxy's, maybe. Without Redis it is embedded.
    real_database_url: the database itself, for the checker.
    """

    folder: Path
    database_url: str
    redis_url: str | None
    real_database_url: str
    settings: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs: list[Path] = []

    @property
    def embedded(self) -> bool:
        return self.redis_url is None

    @property
    def url(self) -> str:
        """Of the first API."""
        return f"http://{HOST}:{self.ports[0]}"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def staging(self) -> Path:
        return self.home / "uploads" if self.embedded else self.folder / "staging"

    @property
    def artifacts(self) -> Path:
        return (self.home if self.embedded else self.folder) / "artifacts"

    def scratches(self) -> list[Path]:
        return [self.home / "scratch"] if self.embedded else sorted(self.folder.glob("scratch-*"))

    @property
    def env(self) -> dict[str, str]:
        env = clean_environment() | SCALED
        env |= {
            "TRTFARM_HOME": str(self.home),
            "TRTFARM_SERVER_REQUIRE_KEYS": "false",  # who calls is not what is tried here
            "TRTFARM_WORKER_CHILD_MODULE": "tests.chaos.child",
            "TRTFARM_WORKER_CHILD_VARIABLES": '["CHAOS_FOLDER"]',
            "CHAOS_FOLDER": str(self.folder),
        }
        if not self.embedded:
            env |= {
                "TRTFARM_DATABASE_URL": self.database_url,
                "TRTFARM_REDIS_URL": str(self.redis_url),
                "TRTFARM_STORE_URL": self.artifacts.as_uri(),
                "TRTFARM_SERVER_STAGING": str(self.staging),
                "TRTFARM_WORKER_RUNTIME": "tensorrt",
                "PYTHONPATH": str(NVML),
            }
        return env | self.settings

    def server(self, once: Sequence[dict[str, str]] = (), name: str = "api") -> Part:
        """An API, on a port of its own; of an embedded farm, all of it."""
        command = [TRTFARM, "serve", *(["--embedded"] if self.embedded else [])]
        port = select_random(exclude_ports=self.ports)
        self.ports.append(port)
        env = self.env | {"TRTFARM_SERVER_PORT": str(port)}
        return Part(name, command, env, self._log(name), once)

    def worker(self, name: str, gpu: Gpu, once: Sequence[dict[str, str]] = ()) -> Part:
        env = self.env | {
            "CHAOS_GPU": f"{gpu.uuid} {gpu.product}",
            "TRTFARM_WORKER_SCRATCH": str(self.folder / f"scratch-{name}"),
        }
        return Part(name, [TRTFARM, "worker"], env, self._log(name), once)

    def database(self) -> Database:
        return Database.open(DatabaseSettings(url=SecretStr(self.real_database_url)), "trtfarm-chaos")

    def store(self) -> ArtifactStore:
        return ArtifactStore.open(StoreSettings(url=self.artifacts.as_uri()))

    def _log(self, name: str) -> Path:
        log = self.folder / f"{name}.log"
        self.logs.append(log)
        return log
