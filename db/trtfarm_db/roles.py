"""The roles of a farm on PostgreSQL, as an administrator makes them once: ``trtfarm db roles``.

Each statement may be executed again. Passwords reach the server, and its log, as SCRAM verifiers alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, make_url

from trtfarm.errors import ConfigurationError
from trtfarm_db.grants import API, SETTING, Roles
from trtfarm_db.settings import DatabaseSettings

_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,39}")
_NOT_EXISTS = "NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal})"
_CREATE = f"DO $$ BEGIN IF {_NOT_EXISTS} THEN CREATE ROLE {{role}}; END IF; END $$"
# One that was there before, for something else, must not lend a worker its powers.
_CHECK = """DO $$ BEGIN
  IF EXISTS (
    SELECT FROM pg_roles WHERE rolname IN ({literals})
    AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
  ) OR EXISTS (
    SELECT FROM pg_auth_members WHERE member IN (SELECT oid FROM pg_roles WHERE rolname IN ({literals}))
  ) THEN RAISE EXCEPTION 'a role of this name is there, and may more than one of a farm'; END IF;
END $$"""
_OWN = """DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename IN ({tables}) LOOP
    EXECUTE format('ALTER TABLE public.%I OWNER TO %I', name, {owner_literal});
  END LOOP;
END $$"""
_DATABASE = (
    "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {database} TO {owner}, {api}, {worker}",
    "REVOKE ALL ON SCHEMA public FROM PUBLIC, {api}, {worker}",
    "GRANT USAGE, CREATE ON SCHEMA public TO {owner}",
    "GRANT USAGE ON SCHEMA public TO {api}, {worker}",
    _OWN,
    "ALTER DATABASE {database} SET {setting} = {prefix}",
)


def statements(prefix: str, database: str) -> list[sql.Composed]:
    """In the order in which an administrator executes them, connected to that database.

    Raises:
        ConfigurationError: that is no prefix for names of roles.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"{prefix!r} is no prefix for names of roles.", hint="Lower-case letters, digits and underscores."
        )
    roles = Roles.of_prefix(prefix)
    # A table that comes later is made by the owner; this is for a farm that had one role for everything.
    names: dict[str, Any] = {
        "database": sql.Identifier(database),
        "literals": sql.SQL(", ").join(map(sql.Literal, roles)),
        "tables": sql.SQL(", ").join(map(sql.Literal, API)),
        "owner_literal": sql.Literal(roles.owner),
        "setting": sql.Identifier(*SETTING.split(".")),
        "prefix": sql.Literal(prefix),
        **{name: sql.Identifier(role) for name, role in roles._asdict().items()},
    }
    made = [
        sql.SQL(statement).format(role=sql.Identifier(role), literal=sql.Literal(role))
        for role in roles
        for statement in (_CREATE, "ALTER ROLE {role} LOGIN")
    ]
    return [*made, *(sql.SQL(each).format(**names) for each in (_CHECK, *_DATABASE))]


def script(prefix: str, settings: DatabaseSettings) -> str:
    """The statements for psql, for the database of the settings; passwords are for people to set."""
    database = make_url(settings.url.get_secret_value()).database or "trtfarm"
    made = [f"{each.as_string()};" for each in statements(prefix, database)]
    passwords = [f"\\password {role}" for role in Roles.of_prefix(prefix)]
    connect = rf"\connect {sql.Identifier(database).as_string()}"
    return "\n".join([connect, "BEGIN;", *made, "COMMIT;", "-- A password for each:", *passwords])


def make(connection: Connection, prefix: str, passwords: Mapping[str, str]) -> Sequence[str]:
    """Makes the roles for the database of this connection; returns their names.

    ``passwords``: by role (owner, api, worker); one that has none keeps what it has.

    Raises:
        ConfigurationError: no PostgreSQL, no prefix for names of roles, or it is not for this user to do.
    """
    if connection.dialect.name != "postgresql":
        raise ConfigurationError("Only PostgreSQL has roles; an SQLite farm is one process of one user.")
    driver: Any = connection.connection.driver_connection
    roles = Roles.of_prefix(prefix)
    try:
        for statement in statements(prefix, driver.info.dbname):
            driver.execute(statement)
    except (psycopg.errors.RaiseException, psycopg.errors.InsufficientPrivilege) as error:
        raise ConfigurationError(
            f"PostgreSQL refused: {error.diag.message_primary}.",
            hint="Give trtfarm db roles a database.url with a superuser, or --print and execute it as one.",
        ) from error
    for name, password in passwords.items():
        role: str = getattr(roles, name)
        verifier = driver.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        driver.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier.decode()))
        )
    return roles
