"""What a converter has left behind: checked before anybody else reads it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from trtfarm.errors import ModelError
from trtfarm.inspection.pool import InspectionPool
from trtfarm.sandbox import Mode
from trtfarm_worker.conversion.convert import ACCOUNT, DATA, HINT, TYPED, ConversionError

_ACCOUNT_NAME = str(Path(TYPED).with_suffix(ACCOUNT))
_DATA_NAME = f"{TYPED}{DATA}"
_ACCOUNT_BYTES = 1 << 16
_FOUND = 5  # names in a message
_POLL_SECONDS = 0.05


def take(made: Path, folder: Path, file_bytes: int) -> Path:
    """Moves the typed model and its account into ``folder``; returns the model's path there.

    Raises:
        ConversionError: there is anything but regular files of these names and sizes.
    """
    limits = {TYPED: file_bytes, _DATA_NAME: file_bytes, _ACCOUNT_NAME: _ACCOUNT_BYTES}
    found = sorted(each.name for each in made.iterdir())[: len(limits) + _FOUND]
    odd = [name for name in found if name not in limits]
    if odd:
        raise _refused(f"has left {', '.join(map(ascii, odd[:_FOUND]))}")
    missing = {TYPED, _ACCOUNT_NAME}.difference(found)
    if missing:
        raise _refused(f"has not written {', '.join(sorted(missing))}")
    for name in found:
        with _opened(made / name) as descriptor:
            status = os.fstat(descriptor)
            if status.st_nlink != 1:
                raise _refused(f"has written {name} under another name too")
            if status.st_size > limits[name]:
                raise _refused(f"has written {status.st_size} bytes into {name}, of at most {limits[name]}")
            (made / name).rename(folder / name)
            if not os.path.samestat(status, os.lstat(folder / name)):
                raise _refused(f"was not finished with {name}")
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)  # a machine that dies must not leave half a model under a good name
    return folder / TYPED


def inspect(typed: Path, sandbox: Mode, watch: Callable[[], None]) -> None:
    """Whether it is a model that reads nothing but the file beside it: read in a process of its own.

    ``watch`` is called again and again meanwhile, and may raise.

    Raises:
        ConversionError: it is none.
        UnavailableError: the process that reads models does not start.
    """
    data = typed.with_name(_DATA_NAME)
    sizes = {data.name: data.stat().st_size} if data.exists() else {}
    with InspectionPool(sandbox=sandbox) as pool, ThreadPoolExecutor(1) as thread:
        reading = thread.submit(pool.inspect, typed, sizes)
        try:
            while True:
                try:
                    info = reading.result(_POLL_SECONDS)
                    break
                except TimeoutError:
                    watch()
        except ModelError as error:
            raise _refused(f"has written what is no model: {error.message}") from error
        except BaseException:
            pool.close()
            raise
    if set(info.external_data) != sizes.keys():
        raise _refused(f"has written {data.name}, which the model does not use")


def account(typed: Path) -> str:
    """What was done to the model."""
    with _opened(typed.with_suffix(ACCOUNT)) as descriptor:
        return os.read(descriptor, _ACCOUNT_BYTES).decode("utf-8", "replace")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """For reading: a regular file, and neither what a link leads to, a device nor a pipe."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise _refused(f"has made {path.name} something else than a file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _refused(f"has made {path.name} something else than a file")
        yield descriptor
    finally:
        os.close(descriptor)


def _refused(what: str) -> ConversionError:
    return ConversionError(f"The converter {what}.", hint=HINT)
