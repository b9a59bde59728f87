"""Processes of a farm that are killed, paused and started again."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.acceptance.processes import Process, descendants

_LOOK_SECONDS = 0.05
_STOP_SECONDS = 40


class Part:
    """One process, started as often as it takes.

    ``exits``: exit statuses of those that ended by themselves. ``once``: environments of the first starts.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        log: Path,
        once: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.name, self.log = name, log
        self._command, self._env, self._once = command, env, list(once)
        self._lock = threading.RLock()
        self._process: Process | None = None
        self.wanted = False
        self.exits: list[int] = []

    @property
    def pid(self) -> int | None:
        with self._lock:
            return self._process.pid if self._process and self._process.running else None

    def start(self) -> None:
        with self._lock:
            self.wanted = True
            if self._process is None or not self._process.running:
                once = self._once.pop(0) if self._once else {}
                self._process = Process(self._command, {**self._env, **once}, self.log)

    def look(self) -> bool:
        """Starts it again if it has ended; whether that was so."""
        with self._lock:
            if not self.wanted or self._process is None or self._process.running:
                return False
            self.exits.append(self._process.wait(0))
            self.start()
            return True

    def signal(self, number: signal.Signals) -> bool:
        """Whether there was a process to get it."""
        with self._lock:
            if self._process is None or not self._process.running:
                return False
            self._process.signal(number)
            return True

    def descendants(self) -> list[int]:
        pid = self.pid
        return [each.pid for each in descendants(pid)] if pid else []

    def stop(self) -> int | None:
        """SIGTERM; its exit status, None if it did not run, -SIGKILL if it did not end."""
        with self._lock:
            self.wanted = False
            process, self._process = self._process, None
        if process is None:
            return None
        if process.running:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.stop()
            return -signal.SIGKILL

    def kill(self) -> None:
        """For cleaning up after a test that failed."""
        with self._lock:
            self.wanted = False
            if self._process is not None:
                family = descendants(self._process.pid)
                self._process.kill()
                for each in family:
                    if each.is_running():
                        each.kill()


class Supervisor:
    """What systemd or Kubernetes does: starts again what has ended."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.restarts = 0

    def __enter__(self) -> Self:
        for part in self._parts:
            part.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            self.restarts += sum(part.look() for part in self._parts)


def eventually(look: Callable[[], bool], seconds: float, pause_seconds: float = 0.05) -> bool:
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(pause_seconds)
    return True
