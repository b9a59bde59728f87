"""``trtfarm db roles``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from trtfarm.cli.output import print_json, say, stderr
from trtfarm.cli.run import exits
from trtfarm.errors import ConfigurationError

ROLES = ("owner", "api", "worker")
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML); see configs/.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def roles(
    prefix: Annotated[
        str, typer.Option(help="Of the names of the roles: PREFIX_owner, PREFIX_api, PREFIX_worker.")
    ] = "trtfarm",
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the SQL for psql, and connect to nothing.")
    ] = False,
    no_passwords: Annotated[
        bool, typer.Option("--no-passwords", help="Leave passwords as they are; with certificates, say.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Makes roles in PostgreSQL for the schema's owner, the API and the workers; run it as an administrator.

    `db upgrade`, as the owner, then grants each what it needs: a worker reads no keys, and writes no names,
    campaigns, orders or keys. Passwords come from TRTFARM_ROLES_OWNER_PASSWORD, TRTFARM_ROLES_API_PASSWORD
    and TRTFARM_ROLES_WORKER_PASSWORD, from the file that one of these with _FILE at its end names, or are
    asked for.
    """
    with exits(as_json=as_json):
        from trtfarm.compose.admin import make_roles, roles_script

        if only_print:
            for line in roles_script(config, prefix).splitlines():
                say(line)
            return
        passwords = {} if no_passwords else {role: _password(role) for role in ROLES}
        made = make_roles(config, prefix, passwords)
        if as_json:
            print_json({"roles": list(made)})
        else:
            stderr.print(f"Roles {', '.join(made)}. Now, as {made[0]}: trtfarm db upgrade", markup=False)


def _password(role: str) -> str:
    """Raises ConfigurationError where nobody can be asked."""
    variable = f"TRTFARM_ROLES_{role.upper()}_PASSWORD"
    if given := os.environ.get(variable):
        return given
    if path := os.environ.get(f"{variable}_FILE"):
        try:
            found = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"{variable}_FILE: {error.strerror}: {path}.") from error
        if found:
            return found
        raise ConfigurationError(f"{variable}_FILE: {path} is empty.")
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"The role of the {role} needs a password.", hint=f"Set {variable} or {variable}_FILE."
        )
    asked: str = typer.prompt(
        f"Password for the {role}'s role", hide_input=True, confirmation_prompt=True, err=True
    )
    return asked
