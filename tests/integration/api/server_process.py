"""The API in a process of its own, to be killed, starved and weighed: python -m … URL FOLDER PORT."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from port_for import select_random

from tests.integration.api.world import open_farm
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api.serving import serve

START_SECONDS = 60


@dataclass
class ServerProcess:
    """The same database, folders and port with every start."""

    database_url: str
    folder: Path
    port: int = field(default_factory=select_random)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def start(self) -> None:
        arguments = [self.database_url, str(self.folder), str(self.port)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
        self.process = subprocess.Popen([sys.executable, "-m", __spec__.name, *arguments], env=environment)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/healthz", trust_env=False)
                return
            time.sleep(0.05)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def peak_bytes(self) -> int:
        """Resident memory at its largest, since ``forget_peak``."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) << 10

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def server_process(database_url: str, folder: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(database_url, folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def main(database_url: str, folder: str, port: str) -> None:
    with InspectionPool() as inspection:
        farm = open_farm(database_url, Path(folder), inspection, port=int(port))
        serve(farm)


if __name__ == "__main__":
    main(*sys.argv[1:])
