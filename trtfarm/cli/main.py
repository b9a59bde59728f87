"""The ``trtfarm`` command."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated, Any

import typer

from trtfarm import __version__
from trtfarm.cli import (
    benchmark,
    build,
    caches,
    campaigns,
    demo,
    doctor,
    export,
    fleet,
    jobs,
    models,
    operate,
    orders,
    plans,
    tidy,
)
from trtfarm.cli.exit_codes import Exit
from trtfarm.cli.output import print_error, stderr
from trtfarm.cli.trtexec_command import TrtexecCommand
from trtfarm.errors import InvalidRequestError

# The base of what typer raises for a command line that it cannot read.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="trtfarm",
    help="A build farm for TensorRT engines.\n\n"
    "TRTFARM_URL and TRTFARM_API_KEY choose a farm; without them the embedded farm in $TRTFARM_HOME is used.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trtfarm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


app.command(epilog="Example: trtfarm demo")(demo.demo)
app.command(cls=TrtexecCommand, epilog=build.EPILOG)(build.build)
app.command(cls=TrtexecCommand, epilog=benchmark.EPILOG)(benchmark.benchmark)
app.add_typer(models.app, name="model")
app.add_typer(jobs.app, name="job")
plans.app.command("export", epilog="Example: trtfarm plan export 2f0c… 77ab… --name detector -o models/")(
    export.plan
)
app.add_typer(plans.app, name="plan")
app.add_typer(caches.app, name="cache")
campaigns.app.command("export", epilog="Example: trtfarm campaign export nightly models/ --format triton")(
    export.campaign
)
app.add_typer(campaigns.app, name="campaign")
app.add_typer(orders.app, name="order")
app.command(epilog="Example: trtfarm coverage --campaign nightly")(campaigns.coverage)
app.command(epilog="Example: trtfarm fleet")(fleet.fleet)
app.command(epilog="Example: trtfarm serve --config configs/api.toml")(operate.serve)
app.command(epilog="Example: trtfarm worker --config configs/worker.toml")(operate.worker)
app.command("gc", epilog="Example: trtfarm gc --dry-run --config configs/api.toml")(tidy.collect)
app.command(epilog="Example: trtfarm scrub --all --config configs/api.toml")(tidy.scrub)
app.add_typer(operate.db, name="db")
app.add_typer(operate.key, name="key")
app.command(epilog="Example: trtfarm doctor")(doctor.doctor)


def main() -> None:
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        status = app(standalone_mode=False)
    except _UsageError as error:
        if "--json" in sys.argv:
            hint = f"{error.ctx.command_path} --help tells more." if error.ctx else None
            print_error(InvalidRequestError(error.format_message(), hint=hint), as_json=True)
        else:
            told = io.StringIO()
            error.show(file=told)  # it quotes what was given, as the names of files
            stderr.print(told.getvalue(), end="")
        status = Exit.USAGE
    except typer.Abort:
        status = Exit.JOB_FAILED
    sys.exit(status)
