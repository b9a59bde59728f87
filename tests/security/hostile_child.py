"""A TensorRT child that a model has taken over: the real one, but for what a request makes it do.

The "model" is a JSON document: which of ``DEEDS`` to do, and their aims. The "plan" tells how that went.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trtfarm import seccomp
from trtfarm_worker.child.protocol import BuildRequest, Built
from trtfarm_worker.tensorrt import child

honest = child.handle
libc = ctypes.CDLL(None, use_errno=True)
COLUMN = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
BIG = 1 << 40


def handle(builder: Any, request: Any, send: Any) -> Any:
    try:
        aims = json.loads(Path(request.model_path).read_text())
    except (AttributeError, ValueError):  # a benchmark, or a model that is one
        return honest(builder, request, send)
    told = {name: _outcome(DEEDS[name], request, aims) for name in aims["deeds"]}
    plan = {"pid": os.getpid(), "told": told, "open": sorted(_open_files())}
    Path(request.plan_path).write_text(json.dumps(plan))
    return Built(build_seconds=0, rss_bytes=1)


def _open_files() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own, or a thread's, has been closed
            yield os.readlink(f"/proc/self/fd/{name}")


def _outcome(deed: Callable[[Any, Any], object], request: BuildRequest, aims: dict[str, Any]) -> str:
    """``done``, or the error."""
    try:
        deed(request, aims)
    except OSError as error:
        return errno.errorcode[error.errno or errno.EIO]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def _call(number: int, *arguments: int) -> int:
    result: int = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _number(name: str) -> int:
    number = seccomp._REFUSED[name][COLUMN]
    assert number is not None
    return number


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as line:
        line.connect(address)
        line.send(b"hello")


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _clone_without_thread() -> None:
    if _call({0: 56, 1: 220}[COLUMN], signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)
    os.wait()


def _peek(pid: int) -> None:
    local = ctypes.create_string_buffer(8)

    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

    here, there = Vector(ctypes.addressof(local), 8), Vector(ctypes.addressof(local), 8)
    if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _attach(pid: int) -> None:
    seize, detach = 0x4206, 17
    if libc.ptrace(seize, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    libc.ptrace(detach, pid, None, None)


def _write(path: str, size: int = 1) -> None:
    with open(path, "wb") as file:
        file.write(b"x" * size)


def _grow(request: BuildRequest) -> None:
    with open(f"{Path(request.plan_path).parent}/large", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, BIG)


def _watch(path: str) -> None:
    descriptor = libc.inotify_init1(0)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, path.encode(), 0x100) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _set_attribute(path: str) -> None:
    os.setxattr(path, "user.farm", b"1")


def _wait_for_the_theft(request: BuildRequest) -> None:
    end = time.monotonic() + 60
    while not (Path(request.plan_path).parents[1] / "stolen").exists():
        if time.monotonic() > end:
            raise TimeoutError(errno.ETIME, "nobody steals")
        time.sleep(0.01)


def _linger(request: BuildRequest, aims: dict[str, Any]) -> None:
    """A thread that looks for other jobs' models for as long as it lives, and keeps what it finds."""

    def look() -> None:
        inside = Path(request.model_path).parents[2]
        while True:
            with contextlib.suppress(OSError):  # a folder goes while it is read
                for path in inside.rglob("*"):
                    if path.is_file() and aims["secret"] in path.read_text(errors="replace"):
                        (Path(request.plan_path).parents[1] / "stolen").write_text("x")
            time.sleep(0.001)

    threading.Thread(target=look, daemon=True).start()


DEEDS: dict[str, Callable[[BuildRequest, dict[str, Any]], object]] = {
    # What it is for.
    "read its model": lambda r, _: Path(r.model_path).read_bytes(),
    "write its plan": lambda r, _: Path(r.plan_path).write_bytes(b"plan"),
    "start a thread": lambda *_: threading.Thread(target=int).start(),
    # Files.
    "read the worker's environment": lambda _, a: Path(f"/proc/{a['worker']}/environ").read_bytes(),
    "read the worker's memory": lambda _, a: os.close(os.open(f"/proc/{a['worker']}/mem", os.O_RDONLY)),
    "read what the worker has open": lambda _, a: os.listdir(f"/proc/{a['worker']}/fd"),
    "read the passwords": lambda *_: Path("/etc/shadow").read_bytes(),
    "read another model": lambda _, a: Path(a["other_model"]).read_bytes(),
    "list other jobs": lambda _, a: os.listdir(a["scratch"]),
    "read the home": lambda _, a: os.listdir(a["home"]),
    "read the working folder": lambda *_: os.listdir("."),
    "change its model": lambda r, _: _write(r.model_path),
    "remove its model": lambda r, _: Path(r.model_path).unlink(),
    "move its model": lambda r, _: Path(r.model_path).rename(Path(r.plan_path).with_name("moved")),
    "write outside": lambda _, a: _write(f"{a['scratch']}/planted"),
    "truncate outside": lambda _, a: os.truncate(a["other_model"], 0),
    "watch a folder": lambda _, a: _watch(a["scratch"]),
    "write into shared memory": lambda _, a: _write(a["shared_memory"]),
    "make a symbolic link": lambda r, _: Path(r.plan_path).with_name("link").symlink_to("/etc/shadow"),
    "make a link": lambda r, a: os.link(a["other_model"], Path(r.plan_path).with_name("link")),
    "make a device": lambda r, _: os.mknod(Path(r.plan_path).with_name("null"), 0o20666, os.makedev(1, 3)),
    "make a pipe": lambda r, _: os.mkfifo(Path(r.plan_path).with_name("fifo")),
    "change a mode": lambda _, a: os.chmod(a["other_model"], 0o666),
    "change an owner": lambda _, a: os.chown(a["other_model"], 0, 0),
    "change a time": lambda _, a: os.utime(a["other_model"]),
    "change an attribute": lambda _, a: _set_attribute(a["other_model"]),
    "lock": lambda _, a: fcntl.flock(a["lock"], fcntl.LOCK_UN),
    "write a huge file": lambda r, _: _grow(r),
    "take all memory": lambda *_: bytearray(BIG),
    # Sockets.
    "connect by TCP": lambda _, a: _connect(socket.AF_INET, socket.SOCK_STREAM, tuple(a["tcp"])),
    "connect to a Unix socket": lambda _, a: _connect(socket.AF_UNIX, socket.SOCK_STREAM, a["unix"]),
    "connect to an abstract socket": lambda _, a: _connect(
        socket.AF_UNIX, socket.SOCK_STREAM, "\0" + a["abstract"]
    ),
    "send by UDP": lambda _, a: _connect(socket.AF_INET, socket.SOCK_DGRAM, tuple(a["udp"])),
    "listen": lambda *_: socket.create_server(("127.0.0.1", 0)).close(),
    "make a pair of sockets": lambda *_: [each.close() for each in socket.socketpair()],
    "open a packet socket": lambda *_: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "open a netlink socket": lambda *_: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "open an io_uring": lambda *_: _call(_number("io_uring_setup"), 1, 0),
    # Processes.
    "fork": lambda *_: _fork(),
    "fork by clone": lambda *_: _clone_without_thread(),
    "start a program": lambda *_: subprocess.run(["/bin/true"], check=True),
    "spawn a program": lambda *_: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    "become a program": lambda *_: os.execv("/nonexistent", ["true"]),
    "signal the worker": lambda _, a: os.kill(a["worker"], 0),
    "signal everybody": lambda *_: os.kill(-1, 0),
    "trace the worker": lambda _, a: _attach(a["worker"]),
    "read the worker by address": lambda _, a: _peek(a["worker"]),
    "open the worker's pidfd": lambda _, a: os.close(os.pidfd_open(a["worker"])),
    "limit the worker": lambda _, a: resource.prlimit(a["worker"], resource.RLIMIT_CORE, (0, 0)),
    "raise its own limits": lambda *_: resource.setrlimit(resource.RLIMIT_NOFILE, (BIG, BIG)),
    "slow the worker down": lambda _, a: os.setpriority(os.PRIO_PROCESS, a["worker"], 1),
    "leave its group": lambda *_: os.setpgid(0, 0),
    "outlive its worker": lambda *_: _prctl(1, 0),
    "become dumpable": lambda *_: _prctl(4, 1),
    "get a namespace": lambda *_: _call(_number("unshare"), 0x10000000),
    "share memory with others": lambda *_: _call(_number("shmget"), 0, 4096, 0o1600),
    "type into a terminal": lambda *_: fcntl.ioctl(0, 0x5412, b"x"),
    # Two jobs, one after the other.
    "linger": _linger,
    "pause": lambda *_: time.sleep(0.3),
    "wait for the theft": lambda r, _: _wait_for_the_theft(r),
}


def _prctl(option: int, value: int) -> None:
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "refused")


def refused_calls() -> dict[str, str]:
    """What each call of the filter's list says; with arguments that no kernel accepts."""
    told = {}
    for name, numbers in seccomp._REFUSED.items():
        if numbers[COLUMN] is not None:
            try:
                _call(_number(name), -1, -1, -1, -1, -1, -1)
                told[name] = "done"
            except OSError as error:
                told[name] = errno.errorcode[error.errno or errno.EIO]
    return told


def _refused_calls(request: BuildRequest, aims: dict[str, Any]) -> None:
    calls = refused_calls().items()
    wrong = {name: told for name, told in calls if told != "EPERM" and name not in aims["left"]}
    if not wrong:
        raise PermissionError(errno.EPERM, "all are refused")
    raise RuntimeError(wrong)


DEEDS["make any refused call"] = _refused_calls


ITS_OWN = {"read its model", "write its plan", "start a thread"}
TWO_JOBS = {"linger", "pause", "wait for the theft"}
FORBIDDEN = [name for name in DEEDS if name not in ITS_OWN | TWO_JOBS]
# Memory is not limited there, and not taken in a test. What CUDA may use is not refused.
UNLIMITED_ON_A_GPU = {"take all memory", "watch a folder"}
REFUSED = {"EPERM", "EACCES", "EFBIG", "MemoryError: ", "ValueError: not allowed to raise maximum limit"}


def main() -> None:
    child.handle = handle
    if sys.argv[1] == "tensorrt" and find_spec("tensorrt") is None:  # which needs a GPU
        library = SimpleNamespace(__version__="1.0")
        child.bindings.load = lambda _: library
        child.EngineBuilder = lambda *_: SimpleNamespace(gpus=("cc-8.9",))  # type: ignore[assignment,misc]
    child.main()


if __name__ == "__main__":
    sys.exit(main())
