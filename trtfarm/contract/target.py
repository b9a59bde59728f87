"""What a plan is built for: GPU or compute capability, runtime, platform."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple, Self

from pydantic import StringConstraints

from trtfarm.contract.value import Value
from trtfarm.errors import UnknownGpuError, UnknownRuntimeError

RTX = "tensorrt-rtx"
ENTERPRISE = "tensorrt"
FLAVOURS = (ENTERPRISE, RTX)
DEFAULT_PLATFORM = "linux-x86_64"

# [0-9], not \d, which is any script's digits.
_RUNTIME = re.compile(r"(tensorrt-rtx|tensorrt)(?:-([0-9]+(?:\.[0-9]+)+))?")
_CAPABILITY = re.compile(r"(?:cc|sm)?[-_ ]?([0-9]{1,2})\.?([0-9])")
_VENDOR_WORDS = re.compile(r"(?<![a-z0-9])(nvidia|geforce|tesla|quadro|graphics device)(?![a-z0-9])")
_MARKS = re.compile(r"[^a-z0-9]+")

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:[-+.][a-z0-9]+)*$", max_length=80)]


class Runtime(NamedTuple):
    """A TensorRT flavour and its full version, as in ``tensorrt-rtx-1.7.1.116``.

    ``version`` is empty where only the flavour is named.
    """

    flavour: str
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _RUNTIME.fullmatch(text.strip().lower())
        if not match:
            raise UnknownRuntimeError(
                f"{text!r} is not a runtime.",
                hint="Write tensorrt or tensorrt-rtx, with a version if it matters: tensorrt-rtx-1.7.1.116.",
            )
        return cls(match[1], match[2] or "")

    def __str__(self) -> str:
        return f"{self.flavour}-{self.version}" if self.version else self.flavour

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """For ordering: text would put 10 before 8."""
        return tuple(int(part) for part in self.version.split(".") if part)


class Target(Value):
    """An exact place that a plan fits.

    Attributes:
        gpu: a product slug (``h200``) or a capability (``cc-8.9``), which means any GPU of it.
        compute_capability: ``8.9``.
        runtime: flavour and full version.
        platform: operating system and architecture.
    """

    gpu: Slug
    compute_capability: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}\.[0-9]$")]
    runtime: Annotated[str, StringConstraints(pattern=rf"^{_RUNTIME.pattern}$")]
    platform: Slug | Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+$")] = DEFAULT_PLATFORM

    @property
    def queue(self) -> str:
        """The Celery queue whose workers build for this target."""
        return queue_name(self.runtime, self.gpu)


def queue_name(runtime: str, gpu: str) -> str:
    return f"{runtime}.{gpu}"


def capability_target(capability: str) -> str:
    """``8.9`` → ``cc-8.9``."""
    return f"cc-{capability}"


def parse_capability(text: str) -> str | None:
    """The capability in ``cc-8.9``, ``sm_89`` or ``8.9``; None if the text is something else."""
    match = _CAPABILITY.fullmatch(text.strip().lower())
    return f"{int(match[1])}.{match[2]}" if match else None


def gpu_slug(name: str) -> str:
    """NVML's product name as a slug: ``NVIDIA GeForce RTX 4090`` → ``rtx-4090``.

    Raises:
        UnknownGpuError: nothing is left of the name.
    """
    parts = [_slug_part(part) for part in _VENDOR_WORDS.sub(" ", name.lower()).split("+")]
    if not parts[0]:
        raise UnknownGpuError(f"{name!r} is not the name of a GPU.")
    return "+".join(filter(None, parts))


def _slug_part(text: str) -> str:
    return _MARKS.sub(lambda marks: "." if marks[0] == "." else "-", text).strip("-.")
