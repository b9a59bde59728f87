"""Keys in files that only their owner can read: of an embedded farm, and the first one of another."""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from trtfarm.errors import ConfigurationError

if TYPE_CHECKING:
    from trtfarm_db.engine import Database

_TOKEN = re.compile(r"trtfarm_local_[0-9a-f]{64}")
_log = logging.getLogger(__name__)


def make_token(path: Path) -> str:
    """The token in a file, which is made anew if others may read it, or it holds none.

    Raises:
        ConfigurationError: it cannot be written.
    """
    if (token := read_token(path)) is not None:
        return token
    token = f"trtfarm_local_{secrets.token_hex(32)}"
    _write(path, token)
    _log.info("The key of this farm lies in %s", path)
    return token


def read_token(path: Path) -> str | None:
    """None if there is none, or others may read or write it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
            return None
        text = file.read(200).strip()
    return text if _TOKEN.fullmatch(text) else None


def make_first_key(database: Database, path: Path) -> None:
    """Makes an admin key, if no key is active, and puts it into a file; says where, and never the key.

    Raises:
        ConfigurationError: the file cannot be written.
        DatabaseUnavailableError.
    """
    from trtfarm.contract.jobs import Scope
    from trtfarm_db.repositories.keys import KeyRepository

    with database.transaction() as connection:
        keys = KeyRepository(connection)
        keys.hold()  # of several processes that start, one makes it
        if keys.any_active():
            return
        key_id, key = keys.create("admin", Scope.ADMIN)
        _write(path, key)  # before the commit: a file that is good for nothing is replaced by the next start
    _log.warning("There was no API key. An admin key was made (%s); it lies in %s", key_id, path)


def _write(path: Path, text: str) -> None:
    """A file with this line alone, 0600, whatever was there. Raises ConfigurationError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(draft, flags, 0o600), "w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigurationError(
            f"A key cannot be written to {path}: {error.strerror}.",
            hint="Let this user write there, or make one first: trtfarm key create admin --scope admin.",
        ) from error
