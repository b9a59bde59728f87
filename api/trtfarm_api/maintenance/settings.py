"""Settings of maintenance: section [maintenance] of configs/api.toml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MaintenanceSettings(BaseModel):
    """How a farm keeps itself tidy.

    Attributes:
        period_seconds: how often; every round ends before the next.
        grace_hours: how long an artifact that nothing refers to stays.
        log_days: how long logs of what has ended stay; 0: as long as their jobs.
        upload_hours: how long an upload may rest before it expires, and temporary files before they go.
        worker_days: how long workers that are gone are remembered; what they built for is accepted that long.
        scrub_days: every artifact is read and hashed again this often.
        scrub_bytes_per_second: not faster than this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    period_seconds: float = Field(default=3600, gt=0)
    grace_hours: float = Field(default=72, ge=0)
    log_days: float = Field(default=0, ge=0)
    upload_hours: float = Field(default=24, gt=0)
    worker_days: float = Field(default=90, ge=1)
    scrub_days: float = Field(default=30, gt=0)
    scrub_bytes_per_second: int = Field(default=32 << 20, ge=1)

    @property
    def grace_seconds(self) -> float:
        return self.grace_hours * 3600

    @property
    def log_seconds(self) -> float | None:
        return self.log_days * 86400 or None

    @property
    def upload_seconds(self) -> float:
        return self.upload_hours * 3600

    @property
    def worker_seconds(self) -> float:
        return self.worker_days * 86400

    @property
    def scrub_seconds(self) -> float:
        return self.scrub_days * 86400
