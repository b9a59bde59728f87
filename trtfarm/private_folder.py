"""A folder that one user alone can change: whatever lies in it, this user has put there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trtfarm.errors import ConfigurationError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path) -> Path:
    """The folder, made with mode 0700 if it is not there.

    Raises:
        ConfigurationError: it, or a link to it, is somebody else's (but root's), others may write into it or
            put another one in its place, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        _check(path, path.lstat(), path.stat(), path.resolve().parent.stat())
    except FileExistsError:
        raise ConfigurationError(f"{path} is no folder.", hint="Name another one, or move it away.") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(
            f"The folder {path} cannot be used: {reason}.", hint="Name one that this user may write to."
        ) from error
    return path


def private_file(path: Path) -> Path:
    """A file in such a folder that only this user reads, made if it is not there. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return path


def _check(path: Path, named: os.stat_result, folder: os.stat_result, above: os.stat_result) -> None:
    for found in (named, folder):
        if found.st_uid not in {0, os.geteuid()}:
            raise ConfigurationError(
                f"The folder {path} belongs to the user with id {found.st_uid}, and this is {os.geteuid()}.",
                hint="Name a folder that is not there yet, or one of your own.",
            )
    if folder.st_mode & _OTHERS_WRITE:
        raise ConfigurationError(
            f"Other users may write into the folder {path}.",
            hint=f"See that nobody has put anything there, then: chmod go-w {path}",
        )
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"Everybody may write into the folder above {path}, and so put another one in its place.",
            hint="Name one below a folder of your own; or set the sticky bit of the one above.",
        )
