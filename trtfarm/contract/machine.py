"""What a machine says of itself when it asks for a plan, and what it wants of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from trtfarm.contract.target import DEFAULT_PLATFORM, Slug
from trtfarm.contract.value import Value

_TEXT = Field(min_length=1, max_length=80)


class MachineRequest(Value):
    """A machine in its own words.

    Attributes:
        gpu: slug, or as NVML prints it; with the MIG profile if it is a slice. None: not known.
        compute_capability: as ``8.9``; None where the catalogue knows the GPU.
        runtime: flavour and full version, as ``tensorrt-10.16.1.11``.
        driver: of the GPU. It takes no part: plans are not bound to it.
    """

    gpu: Annotated[str, _TEXT] | None = None
    compute_capability: Annotated[str, _TEXT] | None = None
    runtime: Annotated[str, _TEXT]
    driver: Annotated[str, _TEXT] | None = None
    platform: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,40}$")] = DEFAULT_PLATFORM


class Machine(Value):
    """The same in the farm's words. ``gpu`` is None where only the capability is known."""

    gpu: Slug | None
    compute_capability: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}\.[0-9]$")]
    runtime: str
    driver: str | None = None
    platform: str = DEFAULT_PLATFORM


@dataclass(frozen=True, slots=True)
class Wanted:
    """Constraints on the builder config, as canonical JSON.

    ``config``: fields that must have these values, None for TensorRT's default. ``profiles``: exactly
    these; None for any.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    profiles: tuple[Any, ...] | None = None
