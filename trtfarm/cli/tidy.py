"""``trtfarm gc`` and ``trtfarm scrub``: maintenance now, instead of with the API's next round."""

from __future__ import annotations

from typing import Annotated

import typer

from trtfarm.cli.operate import Config, Json
from trtfarm.cli.output import print_json, size, stderr
from trtfarm.cli.run import Exit, exits

Embedded = Annotated[
    bool, typer.Option("--embedded", help="The embedded farm in $TRTFARM_HOME; no other trtfarm may run.")
]


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    embedded: Embedded = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Removes artifacts that nothing refers to, stale uploads and temporary files; each after its grace.

    Talks to database and store, not to the API, which does the same every hour.
    """
    with exits(as_json=as_json):
        from trtfarm.compose.tidy import collect_garbage

        done = collect_garbage(config, embedded=embedded, dry_run=dry_run)
        if as_json:
            print_json(done)
            return
        uploads, store = done["uploads"], done["store"]
        freed = uploads["size_bytes"] + store["size_bytes"] + store["temporary_bytes"]
        stderr.print(
            f"{store['artifacts']} artifacts and {uploads['uploads']} uploads "
            f"{'would go' if dry_run else 'removed'}: {size(freed)}."
        )


def scrub(
    everything: Annotated[bool, typer.Option("--all", help="Also what was verified lately.")] = False,
    embedded: Embedded = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Reads stored artifacts and checks their digests; what is damaged or missing goes out of service.

    Exit status 1 if there were any: submit those builds again. Interrupted, it goes on where it was.
    """
    with exits(as_json=as_json):
        from trtfarm.compose import tidy

        with stderr.status("Reading artifacts …"):
            done = tidy.scrub(config, embedded=embedded, everything=everything)
        if as_json:
            print_json(done)
        else:
            stderr.print(f"{done['artifacts']} artifacts read, {size(done['size_bytes'])}.")
            for digest in done["lost"]:
                stderr.print(f"{digest} is lost", markup=False)
        if done["lost"]:
            raise typer.Exit(Exit.JOB_FAILED)
