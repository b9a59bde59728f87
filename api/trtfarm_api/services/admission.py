"""Whether there is room for one more file: on the disks, and in what its submitter may have.

What is announced counts as if it had arrived, until it has, or its upload has expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from trtfarm.contract.v1 import UploadRequest
from trtfarm.errors import QuotaExceededError
from trtfarm_api import space
from trtfarm_api.farm import Farm
from trtfarm_db.repositories.uploads import Announced, UploadRepository

_HINT = "Finish the uploads under way, or ask the farm's operator: trtfarm key limit --max-bytes."


class Need(NamedTuple):
    """What one upload takes: the bytes that have not arrived, and all of them."""

    rest_bytes: int
    size_bytes: int


def needed(farm: Farm, uploads: Sequence[Need]) -> dict[Path, int]:
    """Bytes by folder. A whole file lies in staging and in the store for a moment."""
    staging, store = farm.settings.staging, farm.store.folder
    needs = {staging: sum(each.rest_bytes for each in uploads)}
    if store is not None:
        sizes = [each.size_bytes for each in uploads]
        # On one disk, each leaves staging when it has come into the store.
        needs[store] = max(sizes, default=0) if space.same_disk(staging, store) else sum(sizes)
    return needs


class Admission:
    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def check(self, uploads: UploadRepository, request: UploadRequest, principal: str, *, here: bool) -> None:
        """Until the transaction ends, nobody else is admitted. ``here``: the farm has the file already.

        Raises:
            StorageFullError, QuotaExceededError.
        """
        uploads.one_at_a_time()
        announced = uploads.announced()
        mine = [each for each in announced if each.principal == principal]
        allowed = uploads.allowance(principal, request.digest)
        if allowed.max_bytes is not None and not allowed.counted:
            taken = allowed.stored_bytes + sum(each.size_bytes for each in mine)
            if taken + request.size_bytes > allowed.max_bytes:
                raise QuotaExceededError(
                    f"This key may have {allowed.max_bytes} bytes in the farm, and has {taken}: "
                    f"{request.size_bytes} more are too many.",
                    hint=_HINT,
                )
        if here:
            return
        most = self._farm.settings.max_open_uploads_per_key
        if len(mine) >= most:
            raise QuotaExceededError(
                f"There are {len(mine)} uploads of yours under way, and may be {most}.",
                hint="Finish them first: sent again, a file goes on where it stopped.",
            )
        new = Need(request.size_bytes, request.size_bytes)
        all_needs = needed(self._farm, [*map(self._need, announced), new])
        space.require(all_needs, self._farm.settings.disk_reserve_bytes)
        if allowed.is_key and allowed.max_bytes is None:
            self._check_share([*map(self._need, mine), new])

    def _check_share(self, mine: Sequence[Need]) -> None:
        settings = self._farm.settings
        for folder, size_bytes in space.by_disk(needed(self._farm, mine)):
            room = space.room_bytes(folder, settings.disk_reserve_bytes)
            if size_bytes > settings.max_room_share_per_key * room:
                raise QuotaExceededError(
                    f"One key may announce {settings.max_room_share_per_key:.0%} of the room that is left: "
                    f"{room:.0f} bytes are free for uploads.",
                    hint=_HINT,
                )

    def _need(self, upload: Announced) -> Need:
        try:
            arrived = (self._farm.settings.staging / upload.upload_id).stat().st_size
        except FileNotFoundError:
            arrived = 0
        return Need(max(0, upload.size_bytes - arrived), upload.size_bytes)
