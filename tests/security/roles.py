"""A database with the roles of a farm, made by the command line as an administrator would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex

from psycopg import sql
from sqlalchemy import make_url
from typer.testing import CliRunner

from tests.services import PostgresServer
from trtfarm.cli.main import app
from trtfarm_db.grants import Roles

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class RoleDatabase:
    """``url``: the administrator's."""

    server: PostgresServer
    url: str
    prefix: str

    @property
    def roles(self) -> Roles:
        return Roles.of_prefix(self.prefix)

    def url_of(self, role: str) -> str:
        url = make_url(self.url).set(username=role, password=PASSWORD)
        return url.render_as_string(hide_password=False)


def trtfarm(*arguments: str, status: int = 0, **variables: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={**variables, "COLUMNS": "400"})
    assert done.exit_code == status, done.output
    return done.output


def make(database: RoleDatabase, *arguments: str, status: int = 0) -> str:
    variables = {f"TRTFARM_ROLES_{role}_PASSWORD": PASSWORD for role in ("OWNER", "API", "WORKER")}
    variables["TRTFARM_DATABASE_URL"] = database.url
    return trtfarm("db", "roles", "--prefix", database.prefix, *arguments, status=status, **variables)


@contextmanager
def role_database(server: PostgresServer) -> Iterator[RoleDatabase]:
    """With roles of its own and the schema, granted; all gone at the end."""
    prefix = f"farm_{token_hex(4)}"
    with server.database() as url:
        database = RoleDatabase(server, url, prefix)
        try:
            make(database)
            trtfarm("db", "upgrade", TRTFARM_DATABASE_URL=database.url_of(database.roles.owner))
            yield database
        finally:
            drop = sql.SQL("DROP OWNED BY {}; DROP ROLE {}")
            here = PostgresServer(make_url(url))
            for role in map(sql.Identifier, database.roles):
                here.execute(drop.format(role, role))
