"""``trtfarm cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtfarm.cli.output import print_json, print_table, size, stderr
from trtfarm.cli.run import exits, with_farm
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.errors import InvalidRequestError
from trtfarm.files import target_of, write

app = typer.Typer(help="Timing caches: list, show, export, import, rollback.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Key = Annotated[str, typer.Argument(help="The cache's key; its first digits do.")]
_KEY_DIGITS = 12


@app.command("list", epilog="Example: trtfarm cache list")
def list_caches(as_json: Json = False) -> None:
    """Lists timing caches, the newest revision of each."""
    with exits(as_json=as_json):
        _show(with_farm(lambda farm: farm.timing_caches()), as_json=as_json)


@app.command(epilog="Example: trtfarm cache show 3f9a6c")
def show(key: Key, as_json: Json = False) -> None:
    """Shows all revisions of a timing cache and where they came from."""
    with exits(as_json=as_json):
        _show(with_farm(lambda farm: farm.timing_caches(key)), as_json=as_json)


@app.command(epilog="Example: trtfarm cache export 3f9a6c -o timing.cache")
def export(
    key: Key,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    revision: Annotated[int | None, typer.Option(min=1, help="Instead of the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Writes a timing cache to a file, as trtexec's --timingCacheFile takes it."""
    with exits(as_json=as_json):
        target_of(output)
        data = with_farm(lambda farm: farm.timing_cache(key, revision))
        write(output, data)
        if as_json:
            print_json({"path": str(output), "size_bytes": len(data)})
        else:
            stderr.print(f"{output}  {size(len(data))}", markup=False)


@app.command("import", epilog="Example: trtfarm cache import timing.cache --gpu h200")
def import_cache(
    path: Annotated[Path, typer.Argument(help="A timing cache file, as trtexec writes it.")],
    gpu: Annotated[str, typer.Option(help="The product it was made on.")],
    runtime: Annotated[str | None, typer.Option(help="tensorrt, with the version if it matters.")] = None,
    as_json: Json = False,
) -> None:
    """Publishes a file as the newest revision of a GPU's timing cache; for operators."""
    with exits(as_json=as_json):
        if not path.is_file():
            raise InvalidRequestError(f"There is no file {path}.")
        view = with_farm(lambda farm: farm.import_timing_cache(path, gpu, runtime))
        if as_json:
            print_json(view.model_dump(mode="json"))
        else:
            stderr.print(f"Revision {view.revision} of {view.key[:_KEY_DIGITS]}.", markup=False)


@app.command(epilog="Example: trtfarm cache rollback 3f9a6c --to 4")
def rollback(
    key: Key,
    to: Annotated[int, typer.Option(min=1, help="The revision that builds are to start from again.")],
    as_json: Json = False,
) -> None:
    """Publishes an older revision as the newest; nothing is deleted."""
    with exits(as_json=as_json):
        view = with_farm(lambda farm: farm.roll_back_timing_cache(key, to))
        if as_json:
            print_json(view.model_dump(mode="json"))
        else:
            stderr.print(f"Revision {view.revision} now has the content of {to}.", markup=False)


def _show(caches: tuple[TimingCacheView, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"timing_caches": [each.model_dump(mode="json") for each in caches]})
        return
    rows = [
        (each.key[:_KEY_DIGITS], each.revision, each.gpu, each.runtime, size(each.size_bytes),
         each.entries or "?", f"{each.created_at:%Y-%m-%d %H:%M}", each.job_id or "")
        for each in caches
    ]  # fmt: skip
    columns = ("key", "revision", "gpu", "runtime", "size", "entries", "published", "by job")
    print_table(columns, rows, empty="No timing caches: builds on a GPU make them.")
