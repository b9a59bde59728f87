"""What the API and the workers may do with each table of a PostgreSQL farm.

Every table has a line here, or a test fails; what has no line is granted to nobody but the owner. Columns
are named where a part of a table is for a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

Grants = Mapping[str, tuple[str, ...]]
"""By table: privileges as GRANT has them."""

API: Grants = {
    "alembic_version": ("SELECT",),
    "api_keys": (
        "SELECT",
        "INSERT",
        "UPDATE (max_running, max_bytes, last_used_at, revoked_at)",
    ),
    "artifacts": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "attempts": ("SELECT", "UPDATE (ended_at, outcome, error, log_digest)"),
    "benchmarks": ("SELECT",),
    "campaign_cells": ("SELECT", "INSERT", "DELETE"),
    "campaigns": ("SELECT", "INSERT", "UPDATE"),
    "job_events": ("SELECT", "INSERT"),
    "job_inputs": ("SELECT", "INSERT"),
    "jobs": ("SELECT", "INSERT", "UPDATE"),
    "model_files": ("SELECT", "INSERT"),
    "model_tag_moves": ("SELECT", "INSERT"),
    "model_tags": ("SELECT", "INSERT", "UPDATE (model_digest, moved_at)", "DELETE"),
    "models": ("SELECT", "INSERT"),
    "orders": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "plans": ("SELECT",),
    "quota_members": ("SELECT", "INSERT"),
    "submissions": (
        "SELECT",
        "INSERT",
        "UPDATE (id, disposition, principal, created_at, withdrawn_at)",
    ),
    "timing_caches": ("SELECT", "INSERT"),
    "uploaded_files": ("SELECT", "INSERT"),
    "uploads": ("SELECT", "INSERT", "UPDATE (completed_at, expired_at)", "DELETE"),
    "workers": ("SELECT", "DELETE"),
}

_OF_AN_ATTEMPT = (
    "state, submitter, turn, fence, attempt, crashes, worker_id, gpu_uuid, lease_expires_at, available_at, "
    "progress, error, started_at, finished_at"
)
WORKER: Grants = {
    "alembic_version": ("SELECT",),
    # Of keys, how many jobs may run: a claim needs no more.
    "api_keys": ("SELECT (id, max_running)",),
    "artifacts": (
        "SELECT",
        "INSERT",
        "UPDATE (size_bytes, etag, verified_at, touched_at, state)",
    ),
    "attempts": ("SELECT", "INSERT", "UPDATE (ended_at, outcome, error, log_digest)"),
    "benchmarks": ("SELECT", "INSERT"),
    "campaign_cells": (),
    "campaigns": (),
    "job_events": ("SELECT (id, job_id)", "INSERT"),
    "job_inputs": (),
    # Not what a job is, nor what it counts against, nor whether it is to be cancelled.
    "jobs": ("SELECT", f"UPDATE ({_OF_AN_ATTEMPT})"),
    "model_files": (),
    "model_tag_moves": (),
    "model_tags": (),
    "models": ("SELECT",),
    "orders": (),
    "plans": ("SELECT", "INSERT"),
    "quota_members": ("SELECT",),
    "submissions": (),
    "timing_caches": ("SELECT", "INSERT"),
    "uploaded_files": (),
    "uploads": (),
    "workers": (
        "SELECT",
        "INSERT",
        "UPDATE (draining, condition, last_seen_at, stopped_at)",
    ),
}


class Roles(NamedTuple):
    """Names of roles in PostgreSQL: who makes the tables, and who works with them."""

    owner: str
    api: str
    worker: str

    @classmethod
    def of_prefix(cls, prefix: str) -> Roles:
        return cls(*(f"{prefix}_{name}" for name in cls._fields))


SETTING = "trtfarm.roles"
"""A setting of the database: the prefix of its roles. Without it, one role does everything."""


def roles_of(connection: Connection) -> Roles | None:
    """Those that ``trtfarm db roles`` has made for this database; None where it has not."""
    if connection.dialect.name != "postgresql":
        return None
    prefix = connection.scalar(text("SELECT current_setting(:name, true)"), {"name": SETTING})
    return Roles.of_prefix(prefix) if prefix else None


def grant(connection: Connection, roles: Roles) -> None:
    """Exactly what is declared above, whatever was granted before; as the tables' owner."""
    quote = connection.dialect.identifier_preparer.quote
    for role, grants in ((roles.api, API), (roles.worker, WORKER)):
        for table, privileges in grants.items():
            on = f"ON TABLE public.{quote(table)}"
            connection.execute(text(f"REVOKE ALL {on} FROM PUBLIC, {quote(role)}"))
            for privilege in privileges:
                connection.execute(text(f"GRANT {privilege} {on} TO {quote(role)}"))
