"""The fixtures of the integration tests: a database of each kind, and a farm on it."""

from tests.integration.conftest import (
    database,
    farm,
    migrated_postgres,
    migrated_sqlite,
)

__all__ = ["database", "farm", "migrated_postgres", "migrated_sqlite"]
