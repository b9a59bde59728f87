"""What a build's child does is written in the build: the low bits of its workspace limit."""

from __future__ import annotations

from enum import IntEnum


class Behaviour(IntEnum):
    """``…_ONCE``: in the first attempt only."""

    QUICK = 0
    SLOW = 1
    CRASH_ONCE = 2
    POISON = 3
    HANG = 4
    FULL_DISK_ONCE = 5
    FLOOD = 6
    FORK = 7
    REFUSE = 8
    PARTIAL_ONCE = 9
    GARBAGE_ONCE = 10


# How a build ends if nobody disturbs it: the error's code, or none.
ENDS: dict[Behaviour, str | None] = dict.fromkeys(Behaviour) | {
    Behaviour.POISON: "BUILD_CRASHED",
    Behaviour.HANG: "BUILD_TIMEOUT",
    Behaviour.REFUSE: "BUILD_FAILED",
}


def workspace_bytes(number: int, behaviour: Behaviour, seconds: float = 0.0) -> int:
    """``number``: makes builds differ. ``seconds``: of work, in tenths, up to 25."""
    return number << 16 | round(seconds * 10) << 8 | behaviour


def behaviour_of(workspace: int) -> tuple[Behaviour, float]:
    return Behaviour(workspace & 0xFF), (workspace >> 8 & 0xFF) / 10
