"""The farm of the acceptance tests: one API and two workers, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import services
from tests.acceptance.farms import Farm, a_farm


@pytest.fixture(scope="module")
def farm(
    postgres_server: services.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    with (
        a_farm(tmp_path_factory.mktemp("farm"), postgres_server) as farm,
        farm.api(),
        farm.worker("worker-1"),
        farm.worker("worker-2"),
    ):
        yield farm
        farm.check_logs()
