"""What operators run: ``serve``, ``worker``, ``db upgrade``, ``key``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtfarm.cli.logs import log_to_stderr
from trtfarm.cli.output import print_json, print_table, say, size, size_bytes, stderr
from trtfarm.cli.roles import roles
from trtfarm.cli.run import exits
from trtfarm.contract.jobs import Scope
from trtfarm.contract.text import plain_name
from trtfarm.errors import InvalidRequestError


def _size(text: str) -> int:
    try:
        return size_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML); see configs/.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
MaxBytes = Annotated[
    int | None,
    typer.Option(parser=_size, metavar="SIZE", help="How much it may have in the farm, as 200GiB."),
]
db = typer.Typer(help="The farm's database.", no_args_is_help=True)
key = typer.Typer(help="API keys: create, list, limit, revoke.", no_args_is_help=True)


def serve(
    config: Config = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="One process: SQLite, a folder, a worker; no Redis.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Serves the HTTP API, by default on 127.0.0.1:8420."""
    with exits(as_json=False):
        from trtfarm.compose.serve import serve_distributed, serve_embedded
        from trtfarm.compose.settings import ApiSettings

        settings = ApiSettings.load(config)
        log_to_stderr(settings.secrets())
        given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        settings = settings.model_copy(update={"server": settings.server.model_copy(update=given)})
        (serve_embedded if embedded else serve_distributed)(settings)


def worker(config: Config = None) -> None:
    """Builds for the targets this machine can build for, until it is told to stop."""
    with exits(as_json=False):
        from trtfarm.compose.settings import WorkerFileSettings
        from trtfarm.compose.worker import run

        settings = WorkerFileSettings.load(config)
        log_to_stderr(settings.secrets())
        run(settings)


@db.command(epilog="Example: trtfarm db upgrade --config configs/api.toml")
def upgrade(config: Config = None, as_json: Json = False) -> None:
    """Brings the database to the schema of this version; run it before serve and worker."""
    with exits(as_json=as_json):
        from trtfarm.compose.admin import upgrade_database

        before, after = upgrade_database(config)
        if as_json:
            print_json({"before": before, "after": after})
        else:
            stderr.print(
                f"Schema {after}" + (" already." if before == after else f", was {before or 'empty'}.")
            )


db.command(epilog="Example: trtfarm db roles --print")(roles)


@key.command(epilog="Example: trtfarm key create ci --scope submit")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; for people.")],
    scope: Annotated[Scope, typer.Option(help="Each scope includes those before it.")] = Scope.READ,
    max_running: Annotated[
        int | None, typer.Option(min=0, help="How many of its jobs may run at a time; by default any number.")
    ] = None,
    max_bytes: MaxBytes = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Makes an API key and shows it, this once."""
    with exits(as_json=as_json):
        from trtfarm.compose.admin import key_repository

        with key_repository(config) as keys:
            key_id, secret = keys.create(_key_name(name), scope, max_running, max_bytes)
        if as_json:
            print_json({"key_id": key_id, "key": secret, "scope": scope})
        else:
            stderr.print(f"Key {key_id} ({scope}). It is not shown again; pass it as TRTFARM_API_KEY:")
            say(secret)


def _key_name(name: str) -> str:
    try:
        return plain_name(name)
    except ValueError as error:
        raise InvalidRequestError(f"NAME: {error}.") from None


@key.command("list", epilog="Example: trtfarm key list")
def list_keys(config: Config = None, as_json: Json = False) -> None:
    """Lists API keys."""
    with exits(as_json=as_json):
        from trtfarm.compose.admin import key_repository

        with key_repository(config) as keys:
            found = keys.all()
        if as_json:
            print_json({"keys": [each.model_dump(mode="json") for each in found]})
            return
        rows = [
            (each.key_id, each.name, each.scope,
             "" if each.max_running is None else each.max_running,
             "" if each.max_bytes is None else size(each.max_bytes), f"{each.created_at:%Y-%m-%d}",
             f"{each.last_used_at:%Y-%m-%d}" if each.last_used_at else "never",
             "revoked" if each.revoked_at else "active")
            for each in found
        ]  # fmt: skip
        columns = ("key", "name", "scope", "may run", "may store", "created", "last used", "state")
        print_table(columns, rows, empty="No keys.")


@key.command(epilog="Example: trtfarm key limit 3f9a6c0b12de --max-running 4 --max-bytes 200GiB")
def limit(
    key_id: Annotated[str, typer.Argument(help="As `key list` shows it.")],
    max_running: Annotated[
        int | None, typer.Option(min=0, help="How many of its jobs may run at a time; 0 holds them all.")
    ] = None,
    max_bytes: MaxBytes = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Takes both limits away.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Sets how many jobs of an API key may run at a time, and how much it may upload; what runs goes on."""
    with exits(as_json=as_json):
        from trtfarm.compose.admin import key_repository

        if (max_running is None and max_bytes is None) is not unlimited:
            raise InvalidRequestError("Give --max-running, --max-bytes, or --unlimited.")
        with key_repository(config) as keys:
            if unlimited or max_running is not None:
                keys.limit(key_id, max_running)
            if unlimited or max_bytes is not None:
                keys.limit_bytes(key_id, max_bytes)
            found = next(each for each in keys.all() if each.key_id == key_id)
        if as_json:
            limits = {"max_running": found.max_running, "max_bytes": found.max_bytes}
            print_json({"key_id": key_id, **limits})
        else:
            jobs = "any number of jobs" if found.max_running is None else f"{found.max_running} jobs"
            stored = "as much as there is room for" if found.max_bytes is None else size(found.max_bytes)
            stderr.print(f"Key {key_id} may have {jobs} running, and upload {stored}.")


@key.command(epilog="Example: trtfarm key revoke 3f9a6c0b12de")
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `key list` shows it.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Revokes an API key; within seconds nothing accepts it any more."""
    with exits(as_json=as_json):
        from trtfarm.compose.admin import key_repository

        with key_repository(config) as keys:
            keys.revoke(key_id)
        if as_json:
            print_json({"key_id": key_id, "state": "revoked"})
        else:
            stderr.print(f"Key {key_id} is revoked.")
