"""The API on a port, as the tests of its routes have it, locked."""

from tests.integration.api.conftest import caller, farm_url, inspection, locked, migrated

__all__ = ["caller", "farm_url", "inspection", "locked", "migrated"]
