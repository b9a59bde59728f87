"""Runs a command against a farm and turns how it ends into an exit status."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import typer

from trtfarm.cli.exit_codes import Exit, exit_code
from trtfarm.cli.output import print_error, stderr
from trtfarm.compose.farm import Farm
from trtfarm.compose.here import incomplete
from trtfarm.errors import LocalFileError, TrtFarmError

T = TypeVar("T")


def with_farm(command: Callable[[Farm], T], *, builds: bool = False) -> T:
    """Calls ``command`` with the farm of the environment. ``builds``: an embedded one starts its workers."""
    with Farm(builds=builds) as farm:
        return command(farm)


@contextlib.contextmanager
def exits(*, as_json: bool) -> Iterator[None]:
    """Errors become a message and an exit status; nothing becomes a traceback."""
    try:
        yield
    except TrtFarmError as error:
        print_error(error, as_json=as_json)
        raise typer.Exit(exit_code(error)) from error
    except ModuleNotFoundError as error:
        print_error(incomplete(error), as_json=as_json)
        raise typer.Exit(Exit.USAGE) from error
    except BrokenPipeError:
        raise  # whoever read the output has seen enough; typer ends quietly
    except OSError as error:
        print_error(LocalFileError(_told(error)), as_json=as_json)
        raise typer.Exit(Exit.USAGE) from error
    except KeyboardInterrupt:
        stderr.print("Interrupted.")
        raise typer.Exit(130) from None


def _told(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}."


__all__ = ["Exit", "exits", "with_farm"]
