"""The converter on a kernel that refuses its sandbox."""

from __future__ import annotations

from typing import NoReturn

from trtfarm import sandbox
from trtfarm_worker.conversion.process import main


def confine(*_: object) -> NoReturn:
    raise PermissionError(1, "Operation not permitted")


if __name__ == "__main__":
    sandbox.confine = confine  # type: ignore[assignment]
    main()
