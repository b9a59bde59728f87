"""API keys: ``trtfarm_<id>_<secret>_<checksum>``.

The prefix and the CRC-32 let scanners recognise a leaked key without asking the farm. The secret has
256 random bits, so a plain SHA-256 of it is safe to keep.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib

from sqlalchemy import Connection, func, insert, or_, select, update

from trtfarm.contract.jobs import Scope
from trtfarm.contract.v1 import KeyView
from trtfarm.errors import AuthError, KeyRevokedError, NotFoundError
from trtfarm_db.base import db_now
from trtfarm_db.models import ApiKey
from trtfarm_db.repositories.participants import ParticipantRepository
from trtfarm_db.repositories.quotas import QuotaRepository

_PREFIX = "trtfarm"
_KEY = re.compile(
    rf"(?P<body>{_PREFIX}_(?P<id>[0-9a-f]{{12}})_(?P<secret>[0-9a-f]{{64}}))_(?P<checksum>[0-9a-f]{{8}})"
)
_TOUCH_SECONDS = 60.0
_LOCK = 0x7472_6B65  # "trke"


def parse(key: str) -> tuple[str, str]:
    """(id, secret) of what has the form of a key. Raises AuthError."""
    match = _KEY.fullmatch(key)
    if match is None or match["checksum"] != _checksum(match["body"]):
        raise AuthError("This is not an API key of a trtfarm.")
    return match["id"], match["secret"]


class KeyRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self, name: str, scope: Scope, max_running: int | None = None, max_bytes: int | None = None
    ) -> tuple[str, str]:
        """(key id, the key); the key is not kept and cannot be shown again."""
        key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
        body = f"{_PREFIX}_{key_id}_{secret}"
        self._connection.execute(
            insert(ApiKey).values(
                id=key_id,
                name=name,
                scope=scope.value,
                max_running=max_running,
                max_bytes=max_bytes,
                secret_hash=_hash(secret),
            )
        )
        QuotaRepository(self._connection).of(key_id)
        return key_id, f"{body}_{_checksum(body)}"

    def check(self, key: str) -> tuple[str, Scope]:
        """(key id, scope) of a valid key.

        Raises:
            AuthError: malformed or unknown.
            KeyRevokedError: revoked.
        """
        key_id, secret = parse(key)
        row = self._connection.execute(select(ApiKey).where(ApiKey.id == key_id)).first()
        if row is None or not hmac.compare_digest(row.secret_hash, _hash(secret)):
            raise AuthError("This API key is not known here.")
        if row.revoked_at is not None:
            raise KeyRevokedError
        self._connection.execute(
            update(ApiKey)
            .where(
                ApiKey.id == row.id,
                or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < db_now(-_TOUCH_SECONDS)),
            )
            .values(last_used_at=db_now())
        )
        return row.id, Scope(row.scope)

    def revoke(self, key_id: str) -> None:
        """Raises NotFoundError."""
        changed = self._connection.execute(
            update(ApiKey)
            .where(ApiKey.id == key_id)
            .values(revoked_at=func.coalesce(ApiKey.revoked_at, db_now()))
        ).rowcount
        if not changed:
            raise NotFoundError(f"There is no API key {key_id}.")

    def limit(self, key_id: str, max_running: int | None) -> None:
        """How many of its jobs may run at a time; None: any number. Raises NotFoundError."""
        if not ParticipantRepository(self._connection).limit(key_id, max_running):
            raise NotFoundError(f"There is no API key {key_id}.")

    def limit_bytes(self, key_id: str, max_bytes: int | None) -> None:
        """How much it may have uploaded and announced; None: no limit of its own. Raises NotFoundError."""
        changed = self._connection.execute(
            update(ApiKey).where(ApiKey.id == key_id).values(max_bytes=max_bytes)
        ).rowcount
        if not changed:
            raise NotFoundError(f"There is no API key {key_id}.")

    def hold(self) -> None:
        """Until the transaction ends, no other one that asked for this goes on."""
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))

    def any_active(self) -> bool:
        return (
            self._connection.execute(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)).first()
            is not None
        )

    def all(self) -> list[KeyView]:
        rows = self._connection.execute(select(ApiKey).order_by(ApiKey.created_at))
        return [
            KeyView(
                key_id=row.id,
                name=row.name,
                scope=row.scope,
                max_running=row.max_running,
                max_bytes=row.max_bytes,
                created_at=row.created_at,
                last_used_at=row.last_used_at,
                revoked_at=row.revoked_at,
            )
            for row in rows
        ]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
