"""The GPUs that people deploy on, and every way they write them."""

from __future__ import annotations

import difflib
import re
import tomllib
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError

from trtfarm.contract.target import DEFAULT_PLATFORM, Slug, capability_target, gpu_slug, parse_capability
from trtfarm.contract.value import Value
from trtfarm.errors import ConfigurationError, UnknownGpuError

_MIG = re.compile(r"(?P<base>.+?)[\s+-]+mig[\s-]+(?P<profile>\d+g\.(?P<gib>\d+)gb(?:[+-][a-z.]+)?)")
_MARKS = re.compile(r"[^a-z0-9]")
_FIRST_MAJOR, _LAST_MAJOR = 7, 19
_SUGGESTIONS = 8

CapabilityNumber = Annotated[str, StringConstraints(pattern=r"^\d{1,2}\.\d$")]


class Capability(Value):
    """Any GPU of a compute capability, as ``8.9``."""

    compute_capability: CapabilityNumber

    @property
    def slug(self) -> str:
        """``cc-8.9``."""
        return capability_target(self.compute_capability)


class GpuEntry(Value):
    """One product, or a MIG slice of one.

    Attributes:
        slug: what a target calls it, ``gpu_slug(name)``.
        name: NVML's product name.
        memory_gib: as marketed. None: sold in several sizes under one name, or not certain.
        platforms: where it is found; TensorRT plans are bound to the platform.

    """

    slug: Slug
    name: Annotated[str, StringConstraints(min_length=1)]
    compute_capability: CapabilityNumber
    memory_gib: Annotated[int, Field(ge=1)] | None = None
    architecture: Literal["volta", "turing", "ampere", "ada", "hopper", "blackwell"]
    aliases: tuple[str, ...] = ()
    platforms: tuple[str, ...] = (DEFAULT_PLATFORM,)


class _Document(Value):
    gpu: tuple[GpuEntry, ...]


class Catalogue(Value):
    """Every GPU by slug, name and alias."""

    entries: tuple[GpuEntry, ...]

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The catalogue in a TOML file; without a path, the one that comes with the package.

        Raises:
            ConfigurationError: the file cannot be read, or a key in it is unknown, missing or wrong.

        """
        return cls(entries=_read(path or _packaged()))

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Those of all entries, in numeric order."""
        return tuple(sorted({entry.compute_capability for entry in self.entries}, key=float))

    @cached_property
    def _index(self) -> dict[str, GpuEntry]:
        """Slugs win over aliases."""
        index = {_key(alias): entry for entry in self.entries for alias in entry.aliases}
        return index | {_key(entry.slug): entry for entry in self.entries}

    def resolve(self, text: str) -> GpuEntry | Capability:
        """What a person or a machine wrote: slug, NVML name, alias, ``cc-8.9``, ``sm_89`` or ``8.9``.

        Slices are accepted of every known GPU, as ``h200+mig-1g.18gb`` or in NVML's own words.

        Raises:
            UnknownGpuError: nothing of that name, or a short name that several products share; the
                hint lists the nearest names.

        """
        capability = self._capability(text)
        if capability:
            return capability
        mig = _MIG.fullmatch(text.strip().lower())
        if mig:
            return _slice(self._product(mig["base"], text), mig["profile"], int(mig["gib"]))
        return self._product(text, text)

    def family(self, text: str) -> tuple[GpuEntry, ...]:
        """Products that a short name could mean: ``A100 80GB`` says neither SXM4 nor PCIe."""
        words = _words(text)
        return tuple(entry for entry in self.entries if _means(words, entry))

    def _beginning_with(self, key: str) -> tuple[GpuEntry, ...]:
        return tuple(entry for entry in self.entries if key and _key(entry.slug).startswith(key))

    def _capability(self, text: str) -> Capability | None:
        number = parse_capability(text)
        if number is None:
            return None
        if text.strip().isdigit() and number not in self.capabilities:
            return None
        if not _FIRST_MAJOR <= int(number.partition(".")[0]) <= _LAST_MAJOR:
            raise UnknownGpuError(
                f"There is no compute capability {number} here.",
                hint=f"Known ones: {', '.join(self.capabilities)}.",
            )
        return Capability(compute_capability=number)

    def _product(self, name: str, text: str) -> GpuEntry:
        key = _key(name)
        if key and key in self._index:
            return self._index[key]
        shown = text.strip()[:80]
        family = self.family(name) or self._beginning_with(key)
        if len(family) == 1 and _complete(name, family[0]):
            return family[0]
        if family:
            numbers = sorted({entry.compute_capability for entry in family}, key=float)
            many = f"could be {len(family)} GPUs" if len(family) > 1 else "is no whole name"
            raise UnknownGpuError(
                f"{shown!r} {many}.",
                hint=f"Say which: {', '.join(entry.slug for entry in family[:_SUGGESTIONS])}; "
                f"or any of a capability: {', '.join(map(capability_target, numbers))}.",
                gpu=shown,
            )
        raise UnknownGpuError(f"No GPU called {shown!r} is known.", hint=self._nearest(key), gpu=shown)

    def _nearest(self, key: str) -> str:
        close = difflib.get_close_matches(key, self._index, n=_SUGGESTIONS, cutoff=0.6)
        names = list(dict.fromkeys(self._index[match].slug for match in close))[:3]
        capability = "a compute capability, as cc-8.9"
        return f"Did you mean {', '.join(names)}? Or write {capability}." if names else f"Write {capability}."


def _key(text: str) -> str:
    """Without vendor words, case and punctuation: ``NVIDIA GeForce RTX 4090`` → ``rtx4090``."""
    try:
        return _MARKS.sub("", gpu_slug(text))
    except UnknownGpuError:
        return ""


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(gpu_slug(text).split("-"))
    except UnknownGpuError:
        return ()


def _means(words: tuple[str, ...], entry: GpuEntry) -> bool:
    """The product's first word comes first; of the others, and its memory, it may have any."""
    own = entry.slug.split("-")
    return bool(words) and words[0] == own[0] and set(words) <= {*own, f"{entry.memory_gib}gb"}


def _complete(text: str, entry: GpuEntry) -> bool:
    """Nothing of its name is left out: ``L4 24GB``, but not ``A800 40GB``."""
    return set(entry.slug.split("-")) <= set(_words(text))


def _slice(whole: GpuEntry, profile: str, gib: int) -> GpuEntry:
    """A MIG slice is a GPU of its own: other SM count and memory, so other plans."""
    changes: dict[str, Any] = {
        "slug": f"{whole.slug}+mig-{profile}",
        "name": f"{whole.name} MIG {profile}",
        "memory_gib": gib,
        "aliases": (),
    }
    return whole.model_copy(update=changes)


def _packaged() -> Path:
    """A wheel carries ``configs`` in the package; a source tree has it beside the package."""
    package = Path(str(resources.files("trtfarm")))
    inside = package / "configs" / "targets.toml"
    return inside if inside.is_file() else package.parent / "configs" / "targets.toml"


@lru_cache(maxsize=8)
def _read(path: Path) -> tuple[GpuEntry, ...]:
    try:
        return _Document.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).gpu
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"The GPU catalogue {path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{path}: {where}: {first['msg']}.", key=where) from error
