"""Room on the disks that the API writes to."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from trtfarm.errors import StorageFullError


def nearest(folder: Path) -> Path:
    """The folder, or that above it which exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def free_bytes(folder: Path) -> float:
    """NaN if the disk does not tell."""
    try:
        return float(shutil.disk_usage(nearest(folder)).free)
    except OSError:
        return float("nan")


def room_bytes(folder: Path, reserve_bytes: int) -> float:
    """Free for uploads; infinite if the disk does not tell."""
    free = free_bytes(folder)
    return float("inf") if free != free else max(0.0, free - reserve_bytes)  # noqa: PLR0124 - NaN


def same_disk(one: Path, other: Path) -> bool:
    return nearest(one).stat().st_dev == nearest(other).stat().st_dev


def by_disk(needs: dict[Path, int]) -> list[tuple[Path, int]]:
    """A folder of each disk, and the bytes that all folders on it need."""
    together: dict[int, tuple[Path, int]] = {}
    for folder, size_bytes in needs.items():
        with contextlib.suppress(OSError):
            device = nearest(folder).stat().st_dev
            together[device] = (folder, together.get(device, (folder, 0))[1] + size_bytes)
    return list(together.values())


def require(needs: dict[Path, int], reserve_bytes: int) -> None:
    """``needs``: bytes by folder; those on one disk need them together.

    Raises:
        StorageFullError: less than the reserve would be left on a disk.
    """
    for folder, size_bytes in by_disk(needs):
        free = free_bytes(folder)
        if free - size_bytes < reserve_bytes:
            raise StorageFullError(
                f"There is no space for {size_bytes} bytes: {free:.0f} are free, {reserve_bytes} stay so.",
                hint="Try again later, or tell the farm's operator to free some space.",
            )
