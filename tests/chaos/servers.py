"""PostgreSQL and Redis that are stopped in the middle of their work and started again."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests import services
from tests.chaos.parts import eventually
from tests.private_servers import HOST, USER, PostgresCluster, postgres_cluster

_START_SECONDS = 60


class Postgres:
    """Its own cluster, with fsync on."""

    def __init__(self, cluster: PostgresCluster, log: Path) -> None:
        self._cluster, self._log = cluster, log
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.port = cluster.port

    def url(self, port: int) -> str:
        """Of its database, through that port."""
        return f"postgresql+psycopg://{USER}@{HOST}:{port}/postgres"

    def start(self) -> None:
        """Waits until it has recovered."""
        with self._lock, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._cluster.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cluster.data,
                start_new_session=True,
                **self._cluster.account,
            )
            if not eventually(self.answers, _START_SECONDS):
                raise OSError(f"PostgreSQL does not start: {self._log.read_text()[-2000:]}")

    def answers(self) -> bool:
        try:
            psycopg.connect(self._cluster.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop_at_once(self) -> None:
        """Immediate: nothing is written out, as with a power cut; the next start recovers."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(_START_SECONDS)
                self._process = None

    def stop(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(_START_SECONDS)
                self._process = None


@contextmanager
def postgres(log: Path) -> Iterator[Postgres]:
    """Started; from the first binaries that are there."""
    binaries = services.binaries_on_path() or services.binaries_in_wheel()
    assert binaries is not None
    with postgres_cluster(binaries) as cluster:
        server = Postgres(cluster, log)
        server.start()
        try:
            yield server
        finally:
            server.stop()
