"""Processes that end with the test that started them, and waiting that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
_STOP_SECONDS = 20
_POLL_SECONDS = 0.02


class Process:
    """A process started by a test. ``log`` gets its standard output and error."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                [*map(str, command)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power would."""
        self._popen.kill()
        self._popen.wait(_STOP_SECONDS)

    def wait(self, seconds: float) -> int:
        """The exit status; fails if the process does not end."""
        return self._popen.wait(seconds)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for it and all it has started."""
        family = descendants(self.pid)
        if self.running:
            self._popen.terminate()
            try:
                self._popen.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait(_STOP_SECONDS)
        for process in family:
            if process.is_running():
                process.kill()


@contextmanager
def running(command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> Iterator[Process]:
    process = Process(command, env, log)
    try:
        yield process
    finally:
        process.stop()


def wait_until(what: str, look: Callable[[], T], seconds: float = 30) -> T:
    """What ``look`` returns once that is true; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what} (last seen: {found!r})")
        time.sleep(_POLL_SECONDS)


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def alive(pid: int) -> bool:
    """A zombie has ended: nobody needs to reap it for that."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pid: int) -> None:
    """SIGKILL for a process that another one has started."""
    os.kill(pid, signal.SIGKILL)


def tensorrt_children(pid: int, module: str = "trtfarm_worker.tensorrt.child") -> list[int]:
    """The children of a worker that run TensorRT, or what stands in for it; not the forks of these."""
    found: dict[int, int] = {}
    for process in descendants(pid):
        try:
            if module in process.cmdline():
                found[process.pid] = process.ppid()
        except psutil.Error:  # it has just ended
            continue
    return [child for child, parent in found.items() if parent not in found]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TRTFARM_")}


def peak_resident_bytes(pid: int) -> int:
    """VmHWM: the most memory a living process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmHWM")
