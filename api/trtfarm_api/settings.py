"""Settings of the API: section [server] of configs/api.toml, TRTFARM_SERVER_* variables, defaults."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trtfarm.contract.leases import RetryPolicy
from trtfarm.sandbox import Mode


def _inspection_processes() -> int:
    return max(2, min(4, os.cpu_count() or 1))


LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
ADMIN_KEY = "admin.key"
HostName = Annotated[str, Field(pattern=r"^(\[?[0-9a-fA-F:.]{2,45}\]?|[a-zA-Z0-9_][a-zA-Z0-9._-]{0,252})$")]


class ServerSettings(BaseModel):
    """How the API serves.

    Attributes:
        host, port: where it listens.
        hosts: names by which clients call it, beside ``host``, loopback's, and the address they connect to.
        require_keys: every request but those of ``/healthz`` and ``/readyz`` carries an API key. Without, it
            listens on loopback only, and takes nothing that came through a proxy.
        staging: folder for uploads under way; as large as the largest models together.
        max_upload_bytes: largest file accepted.
        disk_reserve_bytes: an upload that would leave less on the disk of staging or store is refused.
        max_open_uploads_per_key: how many files a submitter may have announced and not yet sent whole.
        max_room_share_per_key: of the room that is free for uploads, how much a key may have announced and
            not yet sent; one with a limit of bytes of its own has that instead.
        dispatch_seconds: how often expired leases are reaped and queued jobs rung again.
        order_seconds: how often standing orders are reconciled with the fleet.
        lease_seconds: how long the reaper holds still after the database was away.
        retry: when a job whose workers are lost is given up.
        inspection_processes: uploaded ONNX files that are read at once.
        inspection_timeout_seconds, inspection_memory_bytes: limits for reading one of them.
        sandbox: what confines the processes that read them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    hosts: list[HostName] = []
    require_keys: bool = True
    staging: Path = Path("/var/lib/trtfarm/uploads")
    max_upload_bytes: int = Field(default=200 * 2**30, ge=1)
    disk_reserve_bytes: int = Field(default=2**30, ge=0)
    max_open_uploads_per_key: int = Field(default=100, ge=1)
    max_room_share_per_key: float = Field(default=0.75, gt=0, le=1)
    dispatch_seconds: float = Field(default=5, gt=0)
    order_seconds: float = Field(default=10, gt=0)
    lease_seconds: float = Field(default=60, gt=0)
    retry: RetryPolicy = RetryPolicy()
    inspection_processes: int = Field(default_factory=_inspection_processes, ge=1, le=64)
    inspection_timeout_seconds: float = Field(default=120, gt=0)
    inspection_memory_bytes: int = Field(default=8 * 2**30, ge=2**28)
    sandbox: Mode = Mode.AUTO

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def accepted_hosts(self) -> tuple[str, ...]:
        """What a Host header may say; 0.0.0.0 and :: are names of nothing."""
        anywhere = self.host in {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        return (*LOOPBACK_NAMES, *self.hosts, *(() if anywhere else (self.host,)))

    @property
    def admin_key(self) -> Path:
        """Where the first start puts the key that it makes: the one folder that every API process writes."""
        return self.staging / ADMIN_KEY
