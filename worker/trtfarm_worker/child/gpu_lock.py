"""One owner per GPU on a host: an flock that lives as long as anything that uses the GPU."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from trtfarm.contract.device import Device
from trtfarm.errors import ConfigurationError

_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - what all users of a host share


@contextlib.contextmanager
def gpu_lock(uuid: str) -> Iterator[int]:
    """The descriptor of the held lock. A child that inherits it keeps the GPU locked after its worker died.

    Raises:
        ConfigurationError: another worker, or a child that outlived one, has the GPU.
    """
    folder = next(folder for folder in _FOLDERS if os.access(folder, os.W_OK))
    path = folder / f"trtfarm-{uuid}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"The GPU {uuid} belongs to another trtfarm worker.",
                hint="One worker a GPU: choose another with worker.gpu, or stop that one.",
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


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
