"""The box of a process that reads a stranger's model: what it may still reach, and that there is no way out.

Three steps, each of which stands if another is missing: the environment is set at exec by an allow-list;
capabilities, limits and ``no_new_privs`` bind the process; Landlock refuses files, and a seccomp filter
sockets, programs, processes and signals.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Final

from trtfarm import landlock, seccomp
from trtfarm.errors import ConfigurationError

_INHERITED: Final = frozenset(
    {"PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "CUDA_DEVICE_ORDER", "CUDA_MODULE_LOADING"}
    | {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
    | {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONUNBUFFERED"}
    | {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS"}
)
_SYSTEM: Final = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_FACTS: Final = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_GPU_FACTS: Final = (
    *("/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/proc/sys", "/proc/version"),
    *("/sys/bus/pci", "/sys/devices", "/sys/module", "/sys/class", "/etc/nvidia", "/usr/share/nvidia"),
    *("/usr/local/cuda", "/run/nvidia"),
)
_GPU_DEVICES: Final = ("/dev/dri", "/dev/nvidia-caps", "/dev/nvidia-caps-imex-channels")
_NAMES_OF_THREADS: Final = "/proc/self/task"  # the driver names its own, or does not start
_OPEN_FILES: Final = 4096
_CAPSET: Final = {"x86_64": 126, "aarch64": 91}
_CAPABILITIES_V3: Final = 0x20080522
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_libc = ctypes.CDLL(None, use_errno=True)


class Mode(StrEnum):
    """``auto``: what the kernel offers. ``required``: at least files and system calls. ``off``: nothing."""

    AUTO = "auto"
    REQUIRED = "required"
    OFF = "off"


class Part(StrEnum):
    """What can be in force. A kernel may lack FILES and what comes after it."""

    PRIVILEGES = "privileges"  # no capabilities, no_new_privs, not dumpable, limits
    CALLS = "calls"  # seccomp
    FILES = "files"  # Landlock, since Linux 5.13
    TCP = "tcp"  # Landlock, since Linux 6.7
    SIGNALS = "signals"  # and abstract sockets: Landlock, since Linux 6.12


LEAST: Final = frozenset({Part.PRIVILEGES, Part.CALLS, Part.FILES})
"""What ``required`` demands; the others refuse once more what CALLS refuses."""


@dataclass(frozen=True, slots=True)
class Box:
    """What a confined process may reach, beside the code it runs.

    Attributes:
        read: files and folders.
        write: folders in which it may make, change and remove regular files and folders.
        memory_bytes: of address space. Not for a GPU: CUDA's driver maps more than there is.
        file_bytes: how large a file it may write.
        gpu: NVIDIA's devices, and what the driver reads of the machine.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    memory_bytes: int | None = None
    file_bytes: int | None = None
    gpu: bool = False


def environment(**more: str) -> dict[str, str]:
    """For the exec of a process that will be confined: none of the farm's settings or secrets."""
    kept = {name: value for name, value in os.environ.items() if name in _INHERITED or name[:3] == "LC_"}
    return kept | more


def offered() -> tuple[Part, ...]:
    """What this machine can put in force."""
    version = landlock.abi()
    there = {
        Part.PRIVILEGES: platform.machine() in _CAPSET,
        Part.CALLS: seccomp.is_known(),
        Part.FILES: version >= 1,
        Part.TCP: version >= 4,
        Part.SIGNALS: version >= 6,
    }
    return tuple(part for part, is_there in there.items() if is_there)


def check(mode: Mode) -> tuple[Part, ...]:
    """What ``confine`` will put in force.

    Raises:
        ConfigurationError: ``mode`` demands what this kernel lacks.
    """
    if mode is Mode.OFF:
        return ()
    parts = offered()
    if mode is Mode.REQUIRED and (missing := LEAST.difference(parts)):
        raise ConfigurationError(
            f"The sandbox is required, and Linux {platform.release()} lacks: {', '.join(sorted(missing))}.",
            hint="Files need Linux 5.13 with Landlock; worker.sandbox = 'auto' does with what there is.",
        )
    return parts


def prepare() -> None:
    """What ``confine`` can do ahead, for processes that this one forks: call it when all is imported."""
    _fixed_rules()
    if seccomp.is_known():
        seccomp.prepare()


def confine(box: Box, mode: Mode = Mode.AUTO) -> tuple[Part, ...]:
    """Confines this process for good; returns what is in force.

    Call it while the process has one thread: Landlock binds the calling thread and those it starts.

    Raises:
        ConfigurationError: as ``check``.
        OSError: a path of the box is not there, or the kernel refuses what it offers.
    """
    parts = check(mode)
    if not parts:
        return ()
    _limit(box)
    if Part.FILES in parts:
        landlock.restrict(_rules(box))
    _drop_capabilities()
    _prctl(_PR_SET_DUMPABLE, 0)
    if Part.CALLS in parts:
        seccomp.install(seccomp.CUDA_LOADS if box.gpu else frozenset())
    return parts


def tighten(parts: Collection[Part]) -> None:
    """Once CUDA is loaded, and before a model is opened: refuses what only loading needs.

    Raises:
        OSError: the kernel refuses.
    """
    if Part.CALLS in parts:
        seccomp.install(seccomp.CUDA)


def _limit(box: Box) -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if box.file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, box.file_bytes)
    if box.memory_bytes is not None and not box.gpu:
        _lower(resource.RLIMIT_AS, box.memory_bytes)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (least, least))


def _rules(box: Box) -> Iterator[tuple[Path, int]]:
    yield from _fixed_rules()
    yield from _if_there("/proc/self", landlock.READ)
    if box.gpu:
        yield from _gpu_rules()
    for path in box.read:
        yield path, landlock.READ
    for path in box.write:
        yield path, landlock.WRITE


@cache
def _fixed_rules() -> tuple[tuple[Path, int], ...]:
    read = [*_code(), *_SYSTEM, *_FACTS]
    rules = [*map(_if_there, read, repeat(landlock.READ)), *map(_if_there, _DEVICES, repeat(landlock.DEVICE))]
    return tuple(chain.from_iterable(rules))


def _gpu_rules() -> Iterator[tuple[Path, int]]:
    for fact in _GPU_FACTS:
        yield from _if_there(fact, landlock.READ)
    for device in (*_GPU_DEVICES, *map(str, sorted(Path("/dev").glob("nvidia*")))):
        yield from _if_there(device, landlock.READ | landlock.DEVICE)
    yield from _if_there(_NAMES_OF_THREADS, landlock.READ | landlock.REWRITE)


def _if_there(name: str, rights: int) -> tuple[tuple[Path, int], ...]:
    path = Path(name)
    return ((path, rights),) if path.exists() else ()


def _code() -> Iterator[str]:
    """Folders with modules and libraries; never one that holds anything else, as a checkout or a home."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    yield from {sysconfig.get_paths()[name] for name in names}
    yield f"{sys.base_prefix}/lib"
    packages = [module for name, module in sys.modules.items() if "." not in name]
    yield from {folder for module in packages for folder in getattr(module, "__path__", ())}
    yield from filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))


def _drop_capabilities() -> None:
    """As root, a process has those that open every file and trace every process."""
    header = struct.pack("=Ii", _CAPABILITIES_V3, 0)
    number = _CAPSET.get(platform.machine())
    if number is not None and _libc.syscall(number, header, bytes(24)) != 0:  # else not told as in force
        raise OSError(ctypes.get_errno(), "The capabilities cannot be dropped.")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) is refused.")
