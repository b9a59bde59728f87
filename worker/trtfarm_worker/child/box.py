"""The folder that a child may reach: a request's files are linked into it for as long as the request runs.

    <scratch>/boxes/<name>/in/<attempt>/    what it reads, and cannot change
    <scratch>/boxes/<name>/out/<attempt>/   what it writes

Results are files that the worker has made itself, with a second name in ``out``: whatever a child puts in
their place, the worker reads its own file and follows no link.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from uuid_utils import uuid7

from trtfarm_worker.child.protocol import (
    LAYERS,
    PROFILE,
    TIMES,
    BenchmarkRequest,
    BuildRequest,
    ChildRequest,
)
from trtfarm_worker.owned_folders import OwnedFolders

_IN, _OUT = "in", "out"


class Box:
    """Owned by this process until it is closed; what a killed worker left is removed by ``remove_litter``."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls, boxes: Path) -> Self:
        """Raises OSError."""
        name = str(uuid7())
        lock = OwnedFolders(boxes).make(name)
        path = boxes / name
        (path / _IN).mkdir()
        (path / _OUT).mkdir()
        return cls(path, lock)

    @contextlib.contextmanager
    def holding(self, request: ChildRequest) -> Iterator[ChildRequest]:
        """The request with the paths that the child is to use.

        Raises:
            OSError: a file is not there, or the disk is full.
        """
        name = Path(request.log_path).parent.name
        inside, outside = inside_of(self.path, name), outside_of(self.path, name)
        try:
            inside.mkdir()
            outside.mkdir()
            yield _linked(request, inside, outside)
        finally:
            for folder in (inside, outside):
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(request, BenchmarkRequest):
                _remove_empty(Path(request.folder))

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def inside_of(box: Path, attempt: str = "") -> Path:
    return box / _IN / attempt


def outside_of(box: Path, attempt: str = "") -> Path:
    return box / _OUT / attempt


def remove_litter(boxes: Path) -> None:
    """Boxes of workers that were killed."""
    for path, lock in OwnedFolders(boxes).abandoned():
        Box(path, lock).close()


def _linked(request: ChildRequest, inside: Path, outside: Path) -> ChildRequest:
    paths: dict[str, object]

    def given(path: str, name: str) -> str:
        os.link(path, inside / name)
        return str(inside / name)

    def wanted(path: str) -> str:
        return str(_second_name(Path(path), outside))

    if isinstance(request, BuildRequest):
        start, learned = request.timing_cache_in, request.timing_cache_out
        paths = {
            "model_path": str(_linked_model(Path(request.model_path), inside)),
            "plan_path": wanted(request.plan_path),
            "io_path": wanted(request.io_path),
            "timing_cache_in": start and given(start, "timing"),
            "timing_cache_out": learned and wanted(learned),
        }
    elif isinstance(request, BenchmarkRequest):
        for name in (TIMES, PROFILE, LAYERS):
            wanted(str(Path(request.folder, name)))
        inputs = {
            name: given(path, f"input{number}")
            for number, (name, path) in enumerate(request.input_paths.items())
        }
        paths = {
            "plan_path": given(request.plan_path, "plan"),
            "input_paths": inputs,
            "folder": str(outside),
        }
    else:
        paths = {
            "base": given(request.base, "base"),
            "addition": given(request.addition, "addition"),
            "destination": wanted(request.destination),
        }
    return request.model_copy(update={**paths, "log_path": wanted(request.log_path)})


def _second_name(path: Path, folder: Path) -> Path:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    os.link(path, folder / path.name)
    return folder / path.name


def _linked_model(model: Path, inside: Path) -> Path:
    """With its external data, which the ONNX file names relative to itself."""
    shutil.copytree(model.parent, inside / "model", copy_function=os.link)
    return inside / "model" / model.name


def _remove_empty(folder: Path) -> None:
    """Results that a benchmark was not asked for."""
    for name in (TIMES, PROFILE, LAYERS):
        with contextlib.suppress(FileNotFoundError):
            if (folder / name).stat().st_size == 0:
                (folder / name).unlink()
