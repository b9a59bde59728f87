"""The API's description of itself, frozen: a change of it is a change of the contract.

After one that is meant: .venv/bin/python -m tests.integration.api.test_openapi
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI

from tests.integration.api.world import World
from trtfarm_api.settings import ServerSettings

GOLDEN = Path(__file__).parents[2] / "golden" / "openapi.json"


def frozen(document: dict[str, Any]) -> str:
    del document["info"]["version"]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def test_it_is_as_it_was(world: World) -> None:
    assert frozen(world.get("/openapi.json")) == GOLDEN.read_text(), __doc__


def test_errors_are_problem_documents(world: World) -> None:
    document = world.get("/openapi.json")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert "default" in operation["responses"], (method, path)
            assert "422" not in operation["responses"], (method, path)


def main() -> None:
    from trtfarm_api.app import create_app

    class _Nothing:
        """No route is called, so the farm's parts are not needed."""

        inspection = SimpleNamespace(processes=1)
        settings = ServerSettings()

        def __getattr__(self, name: str) -> None:
            return None

    app: FastAPI = create_app(_Nothing())  # type: ignore[arg-type]
    GOLDEN.write_text(frozen(app.openapi()))


if __name__ == "__main__":
    main()
