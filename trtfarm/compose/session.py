"""A client of the farm that the environment names: a remote one, or the embedded one on this machine."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from trtfarm.compose.embedded import Home, controller, embedded_farm, reachable_at, socket_folder
from trtfarm.errors import AuthError, ConfigurationError, FarmUnreachableError
from trtfarm.sdk.client import FarmClient

_EMBEDDED_URL = "http://embedded.trtfarm"


@dataclass(frozen=True)
class Session:
    """``home``: of the embedded farm; None with a remote one. ``guest``: another process runs it."""

    client: FarmClient
    home: Home | None = None
    guest: bool = False

    def plan_path(self, digest: str) -> Path | None:
        """Where the plan lies on this machine already."""
        if self.home is None:
            return None
        name = digest.removeprefix("sha256:")
        path = self.home.artifacts / "sha256" / name[:2] / name[2:]
        return path if path.is_file() else None


@contextlib.contextmanager
def session(*, builds: bool = False, home: Home | None = None) -> Iterator[Session]:
    """``builds``: the embedded farm starts its worker.

    Raises:
        AuthError: TRTFARM_API_KEY cannot be a key.
        ConfigurationError: TensorRT cannot be loaded.
        FarmUnreachableError: the remote farm does not answer.
    """
    url = os.environ.get("TRTFARM_URL")
    if url and home is None:
        with FarmClient(url, _api_key()) as client:
            yield Session(client)
        return
    home = home or Home.default()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(controller(home))
        except ConfigurationError:
            yield Session(stack.enter_context(_guest(home)), home, guest=True)
            return
        yield Session(stack.enter_context(_controlling(home, builds=builds)), home)


def _api_key() -> str | None:
    key = os.environ.get("TRTFARM_API_KEY")
    if key and not (key.isascii() and key.isprintable()):
        raise AuthError("TRTFARM_API_KEY has characters that no API key has.", hint="Copy the key again.")
    return key


@contextlib.contextmanager
def _controlling(home: Home, *, builds: bool) -> Iterator[FarmClient]:
    from trtfarm_api.serving import serving

    with contextlib.ExitStack() as stack:
        farm, crew = stack.enter_context(embedded_farm(home))
        folder = stack.enter_context(socket_folder())
        if builds:
            stack.callback(crew.stop)
            crew.start()
        stack.enter_context(serving(farm, folder / "api"))
        stack.enter_context(reachable_at(home, socket=str(folder / "api")))
        yield stack.enter_context(_client(folder / "api"))


@contextlib.contextmanager
def _guest(home: Home) -> Iterator[FarmClient]:
    """Through the process that runs the embedded farm now."""
    try:
        where = json.loads(home.address.read_text())
        client = FarmClient(where["url"]) if "url" in where else _client(Path(where["socket"]))
    except (OSError, ValueError, KeyError):
        raise FarmUnreachableError(f"The farm in {home.path} is starting or stopping.") from None
    with client:
        yield client


def _client(socket: Path) -> FarmClient:
    return FarmClient(_EMBEDDED_URL, transport=httpx.HTTPTransport(uds=str(socket)))
