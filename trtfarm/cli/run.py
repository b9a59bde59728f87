"""Runs a command against a farm and turns how it ends into an exit status."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import typer

from trtfarm.cli.exit_codes import Exit, exit_code
from trtfarm.cli.output import print_error, stderr
from trtfarm.compose.session import Session, session
from trtfarm.errors import ConfigurationError, FarmUnreachableError, LocalFileError, TrtFarmError

T = TypeVar("T")
_TAKE_OVER_SECONDS = 60.0


def with_farm(command: Callable[[Session], T], *, builds: bool = False) -> T:
    """Calls ``command`` with a session; it must be repeatable.

    While another process runs the embedded farm, this one is its guest. When that process ends, the
    command is repeated here: what it had submitted is found again.
    """
    since = None
    while True:
        started = time.monotonic()
        guest = True
        try:
            with session(builds=builds) as farm:
                guest = farm.guest
                return command(farm)
        except FarmUnreachableError:
            # One that had been served for a while starts to count anew.
            if since is None or time.monotonic() - started > _TAKE_OVER_SECONDS:
                since = time.monotonic()
            if not guest or time.monotonic() - since > _TAKE_OVER_SECONDS or _remote():
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def exits(*, as_json: bool) -> Iterator[None]:
    """Errors become a message and an exit status; nothing becomes a traceback."""
    try:
        yield
    except TrtFarmError as error:
        print_error(error, as_json=as_json)
        raise typer.Exit(exit_code(error)) from error
    except ModuleNotFoundError as error:
        print_error(_incomplete(error), as_json=as_json)
        raise typer.Exit(Exit.USAGE) from error
    except BrokenPipeError:
        raise  # whoever read the output has seen enough; typer ends quietly
    except OSError as error:
        print_error(LocalFileError(_told(error)), as_json=as_json)
        raise typer.Exit(Exit.USAGE) from error
    except KeyboardInterrupt:
        stderr.print("Interrupted.")
        raise typer.Exit(130) from None


def _incomplete(error: ModuleNotFoundError) -> ConfigurationError:
    """The base install is a client alone."""
    return ConfigurationError(
        f"This needs {error.name}, which is not installed.",
        hint="Set TRTFARM_URL to use a farm that runs elsewhere, or: pip install 'trtfarm[rtx]'",
    )


def _told(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}."


def _remote() -> bool:
    import os

    return bool(os.environ.get("TRTFARM_URL"))


__all__ = ["Exit", "exits", "with_farm"]
