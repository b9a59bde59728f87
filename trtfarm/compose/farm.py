"""``trtfarm.Farm`` and ``trtfarm.AsyncFarm``: the farm that is named, or the one on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from trtfarm.compose.embedded import Home
from trtfarm.compose.here import URL, AsyncEmbeddedTransport, EmbeddedTransport, Here
from trtfarm.contract.digest import Digest
from trtfarm.sdk.aio import AsyncFarmClient
from trtfarm.sdk.client import FarmClient


class Farm(FarmClient):
    """The farm at ``url``, by default at TRTFARM_URL; without one, the embedded farm on this machine.

    Nothing is asked or started before the first call. Use it in a ``with`` block, or close it: an embedded
    farm then stops, and gives builds under way back to the queue.

    Args:
        api_key: by default TRTFARM_API_KEY.
        home: the folder of an embedded farm, by default TRTFARM_HOME. Goes before TRTFARM_URL.
        builds: the embedded farm starts its workers. Without, it only answers.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        builds: bool = True,
    ) -> None:
        self.here = _here(url, home, builds=builds)
        if self.here is None:
            super().__init__(_url(url), _key(api_key))
        else:
            super().__init__(URL, transport=EmbeddedTransport(self.here))

    def plan_path(self, plan: Digest) -> Path | None:
        """Where a plan lies on this machine already; None with a farm elsewhere."""
        return None if self.here is None else self.here.home.artifact(plan)


class AsyncFarm(AsyncFarmClient):
    """``Farm`` for event loops: the same arguments, in an ``async with`` block."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        builds: bool = True,
    ) -> None:
        self.here = _here(url, home, builds=builds)
        if self.here is None:
            super().__init__(_url(url), _key(api_key))
        else:
            super().__init__(URL, transport=AsyncEmbeddedTransport(self.here))


def _here(url: str | None, home: str | os.PathLike[str] | None, *, builds: bool) -> Here | None:
    if home is not None:
        return Here(Home(Path(home)), builds=builds)
    return None if _url(url) else Here(Home.default(), builds=builds)


def _url(given: str | None) -> str:
    return given if given is not None else os.environ.get("TRTFARM_URL", "")


def _key(given: str | None) -> str | None:
    return given or os.environ.get("TRTFARM_API_KEY")
