"""Which plans may run beyond their own target: written with a build, and found out of older rows."""

from __future__ import annotations

from alembic import command
from sqlalchemy import select

from tests import values
from tests.integration.farm import Farm
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.spec import BuildSpec
from trtfarm_db import schema
from trtfarm_db.engine import Database
from trtfarm_db.models import Plan

CONFIGS = {
    "plain": BuilderConfig(tf32=False),
    "newer versions": BuilderConfig(version_compatible=True),
    "other GPUs": BuilderConfig(hardware_compatibility_level="ampere_plus"),
    "said to be not": BuilderConfig(version_compatible=False, hardware_compatibility_level="none"),
}


def portable(database: Database) -> list[bool]:
    with database.transaction() as connection:
        return [row.portable for row in connection.execute(select(Plan.portable).order_by(Plan.job_id))]


def test_before_and_after_the_migration(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    farm = Farm(empty_database)
    farm.add_model()
    for config in CONFIGS.values():
        farm.create(BuildSpec(model=values.MODEL, target=values.TARGET, config=config))
        claim = farm.claim()
        assert claim is not None
        farm.finish(claim)
    assert portable(empty_database) == [False, True, True, False]
    with empty_database.engine.begin() as connection:
        command.downgrade(schema._config(connection), "20261201")
    schema.upgrade(empty_database)
    assert portable(empty_database) == [False, True, True, False]
