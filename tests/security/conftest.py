"""The fixtures of the integration tests: a database of each kind, a farm on it, an API that asks for keys."""

from tests.integration.api.conftest import caller, farm_url, inspection, locked, migrated
from tests.integration.conftest import database, farm, migrated_postgres, migrated_sqlite

__all__ = [
    "caller",
    "database",
    "farm",
    "farm_url",
    "inspection",
    "locked",
    "migrated",
    "migrated_postgres",
    "migrated_sqlite",
]
