"""Least privilege in PostgreSQL: what each role can do, and what it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from tests import values
from tests.integration.conftest import opened
from tests.integration.farm import AT_ONCE, WORKER, Farm
from tests.integration.test_benchmark_jobs import DEVICE, PLAN, measured
from tests.integration.test_timing_caches import KEY, publish
from tests.integration.test_turns import key, submit
from tests.security.roles import PASSWORD, RoleDatabase, make, role_database, trtfarm
from tests.services import PostgresServer
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.jobs import JobState, Outcome, Scope
from trtfarm.contract.leases import BenchmarkWork, WorkerInfo
from trtfarm.errors import ConfigurationError
from trtfarm_db import grants, schema
from trtfarm_db.base import Base
from trtfarm_db.engine import Database
from trtfarm_db.leadership import Leadership
from trtfarm_db.notices import Listener
from trtfarm_db.repositories.artifacts import ArtifactRepository, ModelRepository
from trtfarm_db.repositories.jobs import JobRepository, NewJob
from trtfarm_db.repositories.keys import KeyRepository
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_db.repositories.timing_caches import TimingCacheRepository
from trtfarm_db.repositories.workers import WorkerRepository
from trtfarm_db.settings import DatabaseSettings

SECONDS = 30

# What a worker must not do, though whoever took it over tries. Each is refused, whatever rows there are.
FORBIDDEN = (
    # keys
    "SELECT * FROM api_keys",
    "SELECT secret_hash FROM api_keys",
    "SELECT name, scope FROM api_keys",
    "SELECT id FROM api_keys FOR UPDATE",
    "INSERT INTO api_keys (id, name, scope, secret_hash, created_at) VALUES ('a', 'a', 'admin', 'a', now())",
    "UPDATE api_keys SET scope = 'admin'",
    "UPDATE api_keys SET max_running = NULL",
    "UPDATE api_keys SET revoked_at = NULL",
    "DELETE FROM api_keys",
    "TRUNCATE api_keys",
    "COPY api_keys TO STDOUT",
    # who waits for what, and what they may have
    "SELECT * FROM submissions",
    "INSERT INTO submissions (id, job_id, disposition, principal) VALUES ('a', 'a', 'joined', 'a')",
    "UPDATE submissions SET withdrawn_at = now()",
    "INSERT INTO quota_members (quota, key_id) VALUES ('a', 'a')",
    "DELETE FROM quota_members",
    "SELECT * FROM uploads",
    "SELECT * FROM uploaded_files",
    # names, campaigns, orders, models
    "SELECT * FROM model_tags",
    "INSERT INTO model_tags (name, tag, model_digest, moved_at) VALUES ('a', 'b', 'c', now())",
    "UPDATE model_tags SET model_digest = 'a'",
    "DELETE FROM model_tags",
    "INSERT INTO model_tag_moves (name, tag, principal, at) VALUES ('a', 'b', 'c', now())",
    "SELECT * FROM campaigns",
    "UPDATE campaigns SET cancelled_at = now()",
    "DELETE FROM campaign_cells",
    "SELECT * FROM orders",
    "UPDATE orders SET declaration = '{}'",
    "DELETE FROM orders",
    "INSERT INTO models (digest, manifest, info, created_at) VALUES ('a', '{}', '{}', now())",
    "UPDATE models SET manifest = '{}'",
    "INSERT INTO model_files (model_digest, digest) VALUES ('a', 'b')",
    # jobs: not what they are, nor whose
    "INSERT INTO jobs (id) VALUES ('a')",
    "DELETE FROM jobs",
    "UPDATE jobs SET spec = '{}'",
    "UPDATE jobs SET build_key = 'a'",
    "UPDATE jobs SET model_digest = 'a'",
    "UPDATE jobs SET queue = 'a'",
    "UPDATE jobs SET quota = ''",
    "UPDATE jobs SET priority = 100",
    "UPDATE jobs SET timeout_seconds = 1e9",
    "UPDATE jobs SET cancel_requested_at = now()",
    # what is written once
    "UPDATE plans SET digest = 'a'",
    "DELETE FROM plans",
    "UPDATE benchmarks SET measurement = '{}'",
    "DELETE FROM benchmarks",
    "DELETE FROM attempts",
    "UPDATE attempts SET worker_id = 'a'",
    "SELECT data FROM job_events",
    "UPDATE job_events SET kind = 'a'",
    "DELETE FROM job_events",
    "DELETE FROM artifacts",
    "UPDATE artifacts SET kind = 'a'",
    "UPDATE timing_caches SET digest = 'a'",
    "DELETE FROM timing_caches",
    "DELETE FROM workers",
    # the schema
    "CREATE TABLE mine (id integer)",
    "CREATE TABLE public.mine (id integer)",
    "CREATE TEMPORARY TABLE mine (id integer)",
    "CREATE VIEW public.mine AS SELECT 1",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "CREATE TRIGGER mine BEFORE UPDATE ON jobs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE INDEX ON jobs (id)",
    "ALTER TABLE jobs ADD COLUMN mine integer",
    "ALTER TABLE jobs DISABLE TRIGGER ALL",
    "DROP TABLE jobs",
    "GRANT SELECT ON api_keys TO PUBLIC",
    "UPDATE alembic_version SET version_num = 'a'",
    "CREATE EXTENSION pg_trgm",
    # the server
    "CREATE ROLE mine SUPERUSER",
    "ALTER ROLE {worker} SUPERUSER",
    "ALTER ROLE {worker} CREATEROLE",
    "SET ROLE {owner}",
    "SET ROLE {api}",
    "SET SESSION AUTHORIZATION {owner}",
    "ALTER ROLE {api} PASSWORD 'mine'",
    "GRANT {owner} TO {worker}",
    "CREATE DATABASE mine",
    "ALTER DATABASE {database} SET trtfarm.roles = 'mine'",
    "COPY jobs TO PROGRAM 'cat'",
    "COPY models FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT rolpassword FROM pg_authid",
    "ALTER SYSTEM SET log_statement = 'all'",
)
# The API holds the keys; the schema and the past are not its either.
FORBIDDEN_TO_API = (
    "UPDATE api_keys SET scope = 'admin'",
    "UPDATE api_keys SET secret_hash = 'a'",
    "DELETE FROM api_keys",
    "DELETE FROM jobs",
    "DELETE FROM plans",
    "UPDATE plans SET digest = 'a'",
    "INSERT INTO plans (job_id) VALUES ('a')",
    "UPDATE models SET manifest = '{}'",
    "UPDATE model_tag_moves SET principal = 'a'",
    "DELETE FROM model_tag_moves",
    "UPDATE job_events SET kind = 'a'",
    "DELETE FROM job_events",
    "DELETE FROM attempts",
    "CREATE TABLE mine (id integer)",
    "CREATE TEMPORARY TABLE mine (id integer)",
    "ALTER TABLE jobs ADD COLUMN mine integer",
    "DROP TABLE jobs",
    "UPDATE alembic_version SET version_num = 'a'",
    "ALTER ROLE {api} SUPERUSER",
    "SET ROLE {owner}",
    "SELECT rolpassword FROM pg_authid",
)


@pytest.fixture(scope="module")
def roles(postgres_server: PostgresServer) -> Iterator[RoleDatabase]:
    with role_database(postgres_server) as database:
        yield database


@pytest.fixture(scope="module")
def connections(roles: RoleDatabase) -> Iterator[dict[str, Database]]:
    """A database as each of the roles sees it."""
    found = {name: opened(roles.url_of(role)) for name, role in roles.roles._asdict().items()}
    yield found
    for each in found.values():
        each.close()


class TwoRoles(Farm):
    """What clients do goes through the API's role, what workers do through theirs."""

    def __init__(self, api: Database, worker: Database) -> None:
        super().__init__(api)
        self.worker = worker

    @contextmanager
    def leases(self) -> Iterator[LeaseRepository]:
        with self.worker.transaction() as connection:
            yield LeaseRepository(connection, lease_seconds=600, policy=AT_ONCE)


@pytest.fixture
def farm(connections: dict[str, Database]) -> TwoRoles:
    with connections["owner"].transaction() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    farm = TwoRoles(connections["api"], connections["worker"])
    farm.add_model()
    return farm


def refused(database: Database, roles: RoleDatabase, statement: str) -> None:
    """For want of a privilege, and for nothing else."""
    named = statement.replace("{database}", database.engine.url.database or "")
    for name, role in roles.roles._asdict().items():
        named = named.replace(f"{{{name}}}", role)
    with (
        database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ProgrammingError) as refusal,
    ):
        connection.exec_driver_sql(named)
    assert getattr(refusal.value.orig, "sqlstate", None) == "42501", refusal.value.orig


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_a_worker_cannot(roles: RoleDatabase, connections: dict[str, Database], statement: str) -> None:
    refused(connections["worker"], roles, statement)


@pytest.mark.parametrize("statement", FORBIDDEN_TO_API)
def test_the_api_cannot(roles: RoleDatabase, connections: dict[str, Database], statement: str) -> None:
    refused(connections["api"], roles, statement)


def test_every_table_has_its_grants() -> None:
    """Who adds a table must say what the API and a worker may do with it."""
    tables = {*Base.metadata.tables, "alembic_version"}
    assert set(grants.API) == tables
    assert set(grants.WORKER) == tables


def test_exactly_what_is_declared_is_granted(roles: RoleDatabase, connections: dict[str, Database]) -> None:
    """And a table that comes later is nobody's, until it is declared."""
    with connections["owner"].transaction() as connection:
        connection.execute(text("CREATE TABLE later (id integer)"))
        connection.execute(text(f"GRANT ALL ON jobs TO {roles.roles.worker}, PUBLIC"))
    trtfarm("db", "upgrade", TRTFARM_DATABASE_URL=roles.url_of(roles.roles.owner))
    for role, declared in ((roles.roles.api, grants.API), (roles.roles.worker, grants.WORKER)):
        with connections["owner"].transaction() as connection:
            granted = connection.execute(
                text(
                    "SELECT table_name, privilege_type FROM information_schema.table_privileges"
                    " WHERE grantee IN (:role, 'PUBLIC') AND table_schema = 'public'"
                ),
                {"role": role},
            )
            found = {tuple(row) for row in granted}
        assert found == {
            (table, privilege)
            for table, privileges in declared.items()
            for privilege in privileges
            if " " not in privilege
        }
    for name in ("api", "worker"):
        refused(connections[name], roles, "SELECT * FROM later")


def test_no_role_is_an_administrator(roles: RoleDatabase, connections: dict[str, Database]) -> None:
    with connections["owner"].transaction() as connection:
        rows = connection.execute(
            text(
                "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles"
                " WHERE rolname LIKE :prefix"
            ),
            {"prefix": f"{roles.prefix}\\_%"},
        ).all()
    assert [tuple(row) for row in rows] == [(False,) * 5] * 3


def test_nobody_else_may_connect(roles: RoleDatabase) -> None:
    with psycopg.connect(roles.url.replace("+psycopg", ""), autocommit=True) as admin:
        row = admin.execute(
            "SELECT has_database_privilege('public', current_database(), 'CONNECT'),"
            " has_database_privilege('public', current_database(), 'TEMPORARY'),"
            " has_schema_privilege('public', 'public', 'USAGE'),"
            " has_schema_privilege('public', 'public', 'CREATE')"
        ).fetchone()
    assert row == (False,) * 4


# --- what they can ---


def test_the_life_of_jobs(farm: TwoRoles) -> None:
    """Claimed, renewed, crashed, retried, released, lost, cancelled, failed, built: as the worker's role."""
    crasher = farm.submit(0)
    assert farm.fail(farm.claimed(), values.failure(Outcome.CRASHED, retryable=True)) is JobState.QUEUED
    claim = farm.claimed()
    farm.renew(claim)
    farm.release(claim)
    farm.expire((claim := farm.claimed()).job_id)
    assert farm.reap() == [crasher]
    farm.renew(claim)
    farm.finish(claim, values.result(log=values.blob("log")))
    assert farm.state(crasher) is JobState.SUCCEEDED
    farm.submit(1)
    log = values.blob("another log")
    assert farm.fail(farm.claimed(), values.failure(log=log)) is JobState.FAILED
    cancelled = farm.submit(2)
    claim = farm.claimed()
    farm.cancel(cancelled)
    farm.release(claim)
    assert farm.state(cancelled) is JobState.CANCELLED
    with farm.worker.transaction() as connection:
        jobs = JobRepository(connection)
        assert not jobs.any_queued(values.QUEUE)
        assert jobs.get(crasher).plan is not None
        assert ModelRepository(connection).manifest(values.MODEL) == values.MANIFEST


def test_quotas(farm: TwoRoles) -> None:
    """A worker reads how many jobs a key may have running, and no more of it."""
    one, two = key(farm, 1), key(farm, 1)
    for number in range(2):
        submit(farm, one, number)
    submit(farm, two, 2)
    assert {farm.claimed().submitter, farm.claimed().submitter} == {one, two}
    assert farm.claim() is None


def test_measurements_and_timing_caches(farm: TwoRoles) -> None:
    with farm.database.transaction() as connection:
        work = BenchmarkWork(plan=PLAN.digest, plan_size_bytes=PLAN.size_bytes, options=BenchmarkOptions())
        job = JobRepository(connection).create(NewJob(values.spec(0), 0, 60.0, benchmark=work, gpu="l4"))
    assert job is not None
    with farm.leases() as leases:
        claim = leases.claim([job.queue], WORKER, "GPU-1")
        assert claim is not None
        leases.finish_benchmark(claim, measured())
    with farm.worker.transaction() as connection:
        assert JobRepository(connection).get(job.job_id).benchmark is not None
    assert publish(farm.worker, 0) == 1
    with farm.worker.transaction() as connection:
        head = TimingCacheRepository(connection).head(KEY)
        assert head is not None
        artifacts = ArtifactRepository(connection)
        artifacts.hold([head.digest])
        artifacts.restored(values.blob("plan"))


def test_a_workers_own_row(farm: TwoRoles) -> None:
    info = WorkerInfo(
        worker_id="w", hostname="h", runtime="r", platform="p", gpus=("l4",), slots=1, device=DEVICE
    )
    with farm.worker.transaction() as connection:
        workers = WorkerRepository(connection)
        workers.register(info)
        assert workers.seen("w", draining=True)
        workers.stopped("w")


def test_each_role_starts(connections: dict[str, Database]) -> None:
    for database in connections.values():
        schema.require_current(database)


def test_notices_and_locks(farm: TwoRoles) -> None:
    """LISTEN as the API, NOTIFY as a worker, advisory locks as both."""
    told = Event()
    listener = Listener(farm.database, lambda job_id: told.set())
    listener.start()
    try:
        for _ in range(SECONDS * 10):
            if listener.listening:
                break
            Event().wait(0.1)
        farm.submit(0)
        farm.claimed()
        assert told.wait(SECONDS)
    finally:
        listener.stop()
    leader = Leadership(farm.database)
    assert leader.held()
    leader.give_up()


# --- making them ---


def test_made_again_they_are_the_same(roles: RoleDatabase) -> None:
    said = make(roles)
    assert all(role in said for role in roles.roles)
    assert PASSWORD not in said


def test_a_farm_that_had_one_role_for_everything(postgres_server: PostgresServer) -> None:
    """Its tables become the owner's, so that the next upgrade can change them."""
    with role_database(postgres_server) as database:
        admin = opened(database.url)
        try:
            with admin.transaction() as connection:
                connection.execute(text(f"ALTER TABLE jobs OWNER TO {admin.engine.url.username}"))
        finally:
            admin.close()
        make(database)
        owner = opened(database.url_of(database.roles.owner))
        try:
            with owner.transaction() as connection:
                connection.execute(text("ALTER TABLE jobs ADD COLUMN later integer"))
        finally:
            owner.close()


def test_only_the_owner_upgrades(roles: RoleDatabase) -> None:
    for role in (roles.roles.api, roles.roles.worker):
        said = trtfarm("db", "upgrade", status=2, TRTFARM_DATABASE_URL=roles.url_of(role))
        assert roles.roles.owner in said


def test_the_script_says_the_same_without_passwords(roles: RoleDatabase) -> None:
    printed = make(roles, "--print")
    assert PASSWORD not in printed
    statements = printed[printed.index("BEGIN;") : printed.index("COMMIT;") + len("COMMIT;")]
    with psycopg.connect(roles.url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(statements)  # type: ignore[call-overload]
    assert printed.count("\\password") == 3


def test_a_role_of_somebody_powerful_is_not_taken(postgres_server: PostgresServer) -> None:
    with role_database(postgres_server) as database:
        admin: Any = psycopg.connect(database.url.replace("+psycopg", ""), autocommit=True)
        with admin:
            admin.execute(f"ALTER ROLE {database.roles.worker} CREATEROLE")
        assert "may more than one of a farm" in make(database, status=2)


def test_only_an_administrator_makes_roles(roles: RoleDatabase) -> None:
    passwords = {f"TRTFARM_ROLES_{role}_PASSWORD": PASSWORD for role in ("OWNER", "API", "WORKER")}
    owner = roles.url_of(roles.roles.owner)
    said = trtfarm("db", "roles", "--prefix", "other", status=2, TRTFARM_DATABASE_URL=owner, **passwords)
    assert "PostgreSQL refused: permission denied to create role" in said


def test_passwords_are_not_told(roles: RoleDatabase, tmp_path: Path) -> None:
    """The server sees a verifier; a file may hold the password; without one, nobody is asked in a script."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    files = {f"TRTFARM_ROLES_{role}_PASSWORD_FILE": str(file) for role in ("OWNER", "API", "WORKER")}
    arguments = ("db", "roles", "--prefix", roles.prefix)
    trtfarm(*arguments, TRTFARM_DATABASE_URL=roles.url, **files)
    with psycopg.connect(roles.url.replace("+psycopg", "")) as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_authid WHERE rolname LIKE %s AND rolpassword LIKE 'SCRAM-SHA-256$%%'",
            (f"{roles.prefix}\\_%",),
        ).fetchone()
    assert row == (3,)
    said = trtfarm(*arguments, status=2, TRTFARM_DATABASE_URL=roles.url)
    assert "TRTFARM_ROLES_OWNER_PASSWORD" in said
    said = trtfarm(*arguments, status=2, TRTFARM_DATABASE_URL="sqlite:///x.db", **files)
    assert "Only PostgreSQL has roles" in said


def test_a_prefix_is_a_name(roles: RoleDatabase) -> None:
    from trtfarm_db.roles import statements

    for prefix in ("", "x'; DROP TABLE jobs; --", "A", "1", "x" * 41):
        with pytest.raises(ConfigurationError):
            statements(prefix, roles.prefix)


def test_keys_are_checked_as_the_api(farm: TwoRoles) -> None:
    with farm.database.transaction() as connection:
        keys = KeyRepository(connection)
        key_id, secret = keys.create("ci", Scope.SUBMIT, 3, 4)
        assert keys.check(secret) == (key_id, Scope.SUBMIT)
        keys.limit(key_id, None)
        keys.limit_bytes(key_id, None)
        keys.revoke(key_id)


def test_a_url_of_another_database_is_refused_as_before() -> None:
    with pytest.raises(ConfigurationError):
        Database.open(DatabaseSettings(url=SecretStr("mysql://x")), "x")
