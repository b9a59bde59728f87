"""PostgreSQL and Redis of our own, from given binaries: 127.0.0.1, a free port, a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from mirakuru import TCPExecutor
from mirakuru.exceptions import ExecutorError
from port_for import select_random

HOST = "127.0.0.1"
USER = "trtfarm"
TIMEOUT_SECONDS = 60  # to start, and to stop


class PostgresExecutor(TCPExecutor):
    """`postgres` itself in the foreground: a child with its own pid, and with fsync left on.

    pytest-postgresql's executor goes through pg_ctl, which root may not call, and switches fsync off.
    """

    def after_start_check(self) -> bool:
        """It listens before it is ready, so ask it."""
        try:
            psycopg.connect(
                host=self.host, port=self.port, user=USER, dbname="postgres", connect_timeout=5
            ).close()
        except psycopg.OperationalError:
            return False
        return True


@dataclass(frozen=True)
class PostgresCluster:
    """A database cluster that was made, and how to start its server. ``account``: whom as, for Popen."""

    command: list[str]
    port: int
    data: Path
    account: dict[str, Any]

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@{HOST}:{self.port}/postgres"


@contextmanager
def postgres_cluster(binaries: Path) -> Iterator[PostgresCluster]:
    """From the folder of PostgreSQL's programs."""
    with tempfile.TemporaryDirectory(prefix="trtfarm-postgres-") as folder:
        scratch, account = Path(folder), _account()
        data = scratch / "data"
        data.mkdir(mode=0o700)
        if account:
            scratch.chmod(0o711)
            shutil.chown(data, account["user"], account["group"])
            binaries = _reachable(binaries, scratch, account)
        initdb = str(binaries / "initdb")
        options = ["-D", str(data), "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-locale"]
        made = subprocess.run(
            [initdb, *options], capture_output=True, text=True, check=False, cwd=data, **account
        )
        if made.returncode:
            raise OSError(f"{initdb}: {made.stderr.strip()}")
        port = select_random()
        command = [str(binaries / "postgres"), "-D", str(data), "-h", HOST, "-p", str(port), "-k", ""]
        yield PostgresCluster(command, port, data, account)


@contextmanager
def private_postgres(binaries: Path) -> Iterator[str]:
    """From the folder of its programs to the URL of its database `postgres`."""
    with postgres_cluster(binaries) as cluster:
        how = {"popen_kwargs": cluster.account, "stop_signal": signal.SIGINT}
        # SIGINT is PostgreSQL's fast shutdown, which does not wait for its clients.
        with _running(PostgresExecutor, cluster.command, cluster.port, cluster.data, **how):
            yield cluster.url


@contextmanager
def private_redis(binary: Path) -> Iterator[str]:
    """From the path of redis-server to the URL of its database 0."""
    with tempfile.TemporaryDirectory(prefix="trtfarm-redis-") as folder:
        port = select_random()
        command = [str(binary), "--bind", HOST, "--port", str(port), "--dir", folder, "--save", ""]
        with _running(TCPExecutor, command, port, Path(folder)):
            yield f"redis://{HOST}:{port}/0"


@contextmanager
def _running(
    kind: type[TCPExecutor], command: list[str], port: int, folder: Path, **settings: Any
) -> Iterator[None]:
    with tempfile.TemporaryFile("w+") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        server = kind(command, HOST, port, cwd=str(folder), timeout=TIMEOUT_SECONDS, **streams, **settings)
        try:
            server.start()
        except ExecutorError as error:
            log.seek(0)
            raise OSError(f"{error}: {log.read()[-2000:]}") from error
        try:
            yield
        finally:
            server.stop()


def _account() -> dict[str, Any]:
    """Whom to run PostgreSQL as: it refuses root, and `nobody` is there on every machine."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(binaries: Path, scratch: Path, account: dict[str, Any]) -> Path:
    """The binaries, or a copy where the account may not come to them, as in a home folder of root."""
    try:
        subprocess.run([binaries / "postgres", "--version"], capture_output=True, check=True, **account)
    except PermissionError:
        install, package, site = binaries.parents[:3]
        libs = f"{package.name}.libs"  # where a wheel keeps shared libraries, found by their place beside it
        shutil.copytree(install, scratch / "copy" / package.name / install.name)
        if (site / libs).is_dir():
            shutil.copytree(site / libs, scratch / "copy" / libs)
        for path in (scratch / "copy", *(scratch / "copy").rglob("*")):
            shutil.chown(path, account["user"], account["group"])
        return scratch / "copy" / binaries.relative_to(site)
    return binaries
