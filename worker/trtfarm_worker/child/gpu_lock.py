"""One owner per GPU on a host: an flock that lives as long as anything that uses the GPU.

All users of the host share the folder of locks, as they share the GPU: whoever may log in can hold a lock,
and so keep a worker from starting. What somebody has put there instead of a lock is not written to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.device import Device
from trtfarm.errors import ConfigurationError

_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - what all users of a host share


@contextlib.contextmanager
def gpu_lock(uuid: str) -> Iterator[int]:
    """The descriptor of the held lock. A child that inherits it keeps the GPU locked after its worker died.

    Raises:
        ConfigurationError: another worker, or a child that outlived one, has the GPU; or no lock can be made.
    """
    folder = next(folder for folder in _FOLDERS if os.access(folder, os.W_OK))
    path = folder / f"trtfarm-{uuid}.lock"
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"The GPU {uuid} belongs to another trtfarm worker: {path}, of the user with id "
                f"{os.fstat(descriptor).st_uid}, is locked.",
                hint="One worker a GPU: choose another with worker.gpu, or stop that one.",
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Reading is enough for a lock, so that one that another user's worker has left serves as well."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, os.O_RDONLY | flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another worker was faster
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o644)
            descriptor = os.open(path, os.O_RDONLY | flags)
    except OSError as error:
        raise _no_lock(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_lock(path)
    return descriptor


def _no_lock(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is not a lock that can be used.", hint="See who has put it there, and remove it."
    )


def choose(devices: list[Device], wanted: str | None) -> Device:
    """The GPU named by UUID or index; without a name, the only one there is.

    Raises:
        ConfigurationError: none, or more than one.
    """
    listed = ", ".join(f"{index}: {each.name} ({each.uuid})" for index, each in enumerate(devices)) or "none"
    if wanted is None:
        found = devices
    elif wanted.isdecimal():
        found = devices[int(wanted) : int(wanted) + 1]
    else:
        found = [each for each in devices if each.uuid == wanted]
    if len(found) != 1:
        raise ConfigurationError(
            f"Which GPU? There is {listed}.", hint="Name one with TRTFARM_WORKER_GPU: its UUID or index."
        )
    return found[0]
