"""What the store says of a blob, and the name it has there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trtfarm.contract.digest import Digest

if TYPE_CHECKING:
    from obstore import ObjectMeta

_KEY = re.compile(r"sha256/([0-9a-f]{2})/([0-9a-f]{62})")


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """``etag`` changes when other bytes are stored; on disk, made of inode, time and size, at any writing."""

    digest: Digest
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """``written_at``: by the store's clock."""

    digest: Digest
    size_bytes: int
    written_at: datetime


def described(digest: Digest, meta: ObjectMeta) -> StoredBlob:
    """A store without e-tags still tells when it wrote."""
    return StoredBlob(digest, meta["size"], meta["e_tag"] or meta["last_modified"].isoformat())


def key_of(digest: Digest) -> str:
    return f"sha256/{digest.hex[:2]}/{digest.hex[2:]}"


def listed(meta: ObjectMeta) -> ListedBlob | None:
    """None for what is no blob."""
    match = _KEY.fullmatch(meta["path"])
    return match and ListedBlob(
        Digest(f"sha256:{match[1]}{match[2]}"), meta["size"], meta["last_modified"].astimezone(UTC)
    )


def quarantine_key_of(digest: Digest) -> str:
    """Another one each time: a blob that rots again is worth a second look."""
    return f"quarantine/{digest.hex}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
