"""A folder that one user alone can change: whatever lies in it, this user has put there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trtfarm.errors import ConfigurationError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path, setting: str) -> Path:
    """The folder, made with mode 0700 if it is not there. ``setting``: which names it.

    Raises:
        ConfigurationError: it, or a link to it, is somebody else's (but root's), others may write into it or
            put another one in its place, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        _check(path, setting)
    except FileExistsError:
        raise ConfigurationError(
            f"{path} is no folder.", hint=f"Move it away, or set {setting} to another one."
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(
            f"The folder {path} cannot be used: {reason}.",
            hint=f"Set {setting} to one that this user may write to.",
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


def _check(path: Path, setting: str) -> None:
    folder, above = path.stat(), path.resolve().parent.stat()
    for found in (path.lstat(), folder):
        if found.st_uid not in {0, os.geteuid()}:
            raise ConfigurationError(
                f"The folder {path} belongs to the user with id {found.st_uid}, and this is {os.geteuid()}.",
                hint=f"Set {setting} to a folder that is not there yet, or to one of this user's.",
            )
    if folder.st_mode & _OTHERS_WRITE:
        raise ConfigurationError(
            f"Other users may write into the folder {path}.",
            hint=f"See that nobody has put anything there, then: chmod go-w {path}",
        )
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"Everybody may write into the folder above {path}, and so put another one in its place.",
            hint=f"Set {setting} to one below a folder of this user's, or set the sticky bit above it.",
        )
