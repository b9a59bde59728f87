"""The fixtures of the integration tests: a database of each kind, a farm on it, an API that asks for keys.

And a farm that lies."""

from collections.abc import Iterator

import pytest

from tests.integration.api.conftest import caller, farm_url, inspection, locked, migrated
from tests.integration.conftest import database, farm, migrated_postgres, migrated_sqlite
from tests.security.liar import Liar, lying
from trtfarm.sdk.client import FarmClient

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


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying() as liar:
        yield liar


@pytest.fixture
def sdk(liar: Liar) -> Iterator[FarmClient]:
    with FarmClient(liar.url) as client:
        yield client
