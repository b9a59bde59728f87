"""Files that people name: written whole or not at all, and only where a regular file is or can be.

A device, a FIFO or a socket is refused, a symbolic link is written through. What is under way lies beside the
file, for this user alone; whatever others have put under its name is left as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, TypeAlias

from trtfarm.errors import LocalFileError

PathLike: TypeAlias = "str | os.PathLike[str]"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
_PERMISSIONS = 0o777
_MOST_LINKS = 40


def target_of(path: PathLike) -> Path:
    """The regular file that is written to for ``path``, which need not be there yet; links are followed.

    Raises:
        LocalFileError: something else has the name.
        OSError: it cannot be looked at.
    """
    target = followed(path)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        raise LocalFileError(
            f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}, and no regular file.",
            hint="Name a file, new or to be replaced.",
        )
    return target


def followed(path: PathLike) -> Path:
    """Where a symbolic link leads in the end; ``path`` itself if it is none.

    Raises:
        LocalFileError: it leads in a circle, or another user may have put it there (as the kernel refuses
            them: fs.protected_symlinks), or the name cannot be one.
    """
    at = Path(path)
    if "\0" in str(at):
        raise LocalFileError("A file's name cannot have a NUL in it.")
    for _ in range(_MOST_LINKS):
        try:
            link = at.lstat()
        except FileNotFoundError:
            return at
        if not stat.S_ISLNK(link.st_mode):
            return at
        folder = at.parent.stat()
        shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
        if shared and link.st_uid not in {os.geteuid(), folder.st_uid}:
            raise LocalFileError(
                f"{at} is a link that another user has put into a folder for everybody.",
                hint="Name a file in a folder of yours.",
            )
        at = at.parent / at.readlink()
    raise LocalFileError(f"{path} is a link that leads in a circle.")


def write(path: PathLike, data: bytes) -> None:
    """Replaces the file at once by one of these bytes. Raises LocalFileError, OSError."""
    target = target_of(path)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".trtfarm-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            publish(Path(name), file, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def publish(temporary: Path, file: BinaryIO, target: Path) -> None:
    """Gives an open file its name, with the permissions of the file it replaces, else the usual ones.

    The bytes are on the disk before the name is, so that a power cut leaves the old file or the new one.
    """
    file.flush()
    try:
        mode = target.lstat().st_mode & _PERMISSIONS
    except FileNotFoundError:
        mode = 0o666 & ~_umask()
    with contextlib.suppress(PermissionError):  # of a file system that has no such permissions
        os.fchmod(file.fileno(), mode)
    os.fsync(file.fileno())
    temporary.replace(target)
    sync_folder(target.parent)


@contextlib.contextmanager
def owned(path: Path, *, wait: bool = True) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside another one that one process writes at a time; what a killed one left is taken over.

    It is another file, of an unpredictable name, if somebody else has put something under this one, or if
    another process has it and one does not ``wait``. The lock is the file's own, and the name may have moved
    on while one waited for it.
    """
    while (file := _ours(path)) is not None:
        with file:
            if _locked(file, wait=wait) and same_file(path, file):
                yield path, file
                return
        if not wait:
            break
    new = path.with_name(f".trtfarm-{token_hex(16)}{path.suffix}")
    with _opened(new, os.O_EXCL) as file:
        try:
            yield new, file
        finally:
            if same_file(new, file):  # nobody would take it up again
                new.unlink()


def same_file(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """A rename outlives a power cut only when its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ours(path: Path) -> BinaryIO | None:
    """A file for this user alone, made or taken up again; None if the name may be somebody else's."""
    with contextlib.suppress(FileNotFoundError):
        if not _is_ours(path.lstat()):  # before it is opened: a device may mind
            return None
    try:
        file = _opened(path)
    except OSError:
        if path.is_symlink():
            return None  # put there this moment
        raise
    if not _is_ours(os.fstat(file.fileno())):
        file.close()
        return None
    os.fchmod(file.fileno(), 0o600)
    return file


def _opened(path: Path, more_flags: int = 0) -> BinaryIO:
    """Unbuffered: what waited for more would be lost with the line."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | more_flags
    return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)


def _is_ours(found: os.stat_result) -> bool:
    """A second name may be elsewhere, in a folder that others read."""
    alone = found.st_nlink <= 1 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and alone


def _locked(file: BinaryIO, *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _umask() -> int:
    """This process's umask. Setting it to read it would be seen by other threads."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(next(line for line in status.splitlines() if line.startswith("Umask:")).split()[1], 8)
    except (OSError, StopIteration):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask
