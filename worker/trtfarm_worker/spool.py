"""Attempts on disk. What a child has finished is not lost with the worker: any other one can hand it in.

    <scratch>/spool/<job>.<fence>/                one attempt: the files that its child writes
    <scratch>/spool/<job>.<fence>/manifest.json   there from the moment that the child is done

A folder belongs to who holds its lock, which the kernel drops with the process. One that belongs to nobody is
finished work, to be handed in by any worker that shares the scratch folder, or, without a manifest, litter.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import Claim
from trtfarm_worker.finished import LOG, Finished, FinishedFile
from trtfarm_worker.owned_folders import OwnedFolders

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"


class Usage(NamedTuple):
    """Finished work that waits: how many attempts, and the bytes of their files."""

    entries: int
    size_bytes: int


class Entry:
    """One attempt's folder, owned by this process until it is removed or left."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @property
    def log_path(self) -> Path:
        return self.path / LOG

    def seal(self, finished: Finished) -> Finished:
        """From here on a kill, or a power cut, loses nothing. Returns the work with its files' digests.

        Sealing again replaces the manifest.

        Raises:
            OSError: a file of the result is missing, or the disk is full. What was sealed before stays.
        """
        names = [*finished.needed_files, *filter(self._has, finished.possible_files)]
        files = {name: _described(self.path / name) for name in names}
        finished = finished.model_copy(update={"files": files})
        for name in (*names, *filter(self._has, [LOG])):
            _fsync(self.path / name)
        partial = self.path / f".{_MANIFEST}"
        with partial.open("w", encoding="utf-8") as file:
            file.write(finished.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path / _MANIFEST)
        _fsync(self.path)
        _fsync(self.path.parent)
        return finished

    def _has(self, name: str) -> bool:
        return (self.path / name).exists()

    def finished(self) -> Finished | None:
        """What was sealed; None if nothing was, or in words that this version does not know."""
        try:
            return Finished.model_validate_json((self.path / _MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            _log.warning("the spool's %s cannot be read: %s", self.path.name, error)
            return None

    def remove(self) -> None:
        """For good."""
        with contextlib.suppress(OSError):
            (self.path / _MANIFEST).unlink(missing_ok=True)  # first: half a folder must not look finished
        shutil.rmtree(self.path, ignore_errors=True)
        self.leave()

    def leave(self) -> None:
        """To whoever finds it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Spool:
    """The attempts of all workers that share one scratch folder. Made on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._folders = OwnedFolders(folder)

    def open(self, claim: Claim) -> Entry:
        """A new attempt's folder. Raises OSError."""
        name = f"{claim.job_id}.{claim.fence}"
        return Entry(self.folder / name, self._folders.make(name))

    def adopt(self, but: Collection[str] = ()) -> list[Entry]:
        """Finished work that nobody owns, now owned by this process. Removes the litter of killed workers.

        ``but``: names to leave alone. Raises OSError if the folder cannot be used.
        """
        adopted = []
        for entry in [Entry(path, lock) for path, lock in self._folders.abandoned(but)]:
            if (entry.path / _MANIFEST).exists():
                adopted.append(entry)
            else:
                entry.remove()
        return adopted

    def usage(self) -> Usage:
        """Of all that is finished, whoever owns it."""
        entries, size_bytes = 0, 0
        with contextlib.suppress(FileNotFoundError):
            for folder in self.folder.iterdir():
                if (folder / _MANIFEST).exists():
                    entries += 1
                    with contextlib.suppress(FileNotFoundError):  # it has just been handed in
                        size_bytes += sum(file.stat().st_size for file in folder.iterdir())
        return Usage(entries, size_bytes)


def _described(path: Path) -> FinishedFile:
    with path.open("rb") as file:
        return FinishedFile(digest=Digest.of_file(file), size_bytes=os.fstat(file.fileno()).st_size)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
