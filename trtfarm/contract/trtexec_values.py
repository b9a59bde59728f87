"""The grammars of trtexec's option values.

Readers raise ``ValueError`` with the reason; whoever knows the option adds its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation

from pydantic import ValidationError

from trtfarm.contract.builder_config import DATA_TYPES, TENSOR_FORMATS
from trtfarm.contract.profiles import OptimizationProfile, Shape, ShapeRange
from trtfarm.errors import ProfileInvalidError

_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DLA_SRAM_LIMIT = 1 << 30
POOLS = {
    "workspace": "workspace",
    "dlaSRAM": "dla_managed_sram",
    "dlaLocalDRAM": "dla_local_dram",
    "dlaGlobalDRAM": "dla_global_dram",
    "tacticSharedMem": "tactic_shared_memory",
}


def whole(low: int, high: int = 2**31 - 1, *, unset: int | None = None) -> Callable[[str], int | None]:
    """A reader of whole numbers; ``unset`` is trtexec's way to write "as TensorRT likes"."""

    def read(text: str) -> int | None:
        number = int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() else None
        if number is not None and number == unset:
            return None
        if number is None or not low <= number <= high:
            above = f" to {high}" if high < 2**31 - 1 else " or more"
            raise ValueError(f"it is not a whole number of {low}{above}")
        return number

    return read


def choice(spelled: Mapping[str, str]) -> Callable[[str], str]:
    """A reader of one of a few words, case aside."""
    known = {word.lower(): meaning for word, meaning in spelled.items()}

    def read(text: str) -> str:
        if text.lower() not in known:
            raise ValueError(f"it is not one of {', '.join(spelled)}")
        return known[text.lower()]

    return read


def words(*names: str) -> Callable[[str], str]:
    return choice({name: name for name in names})


def switches(spelled: Mapping[str, str]) -> Callable[[str], dict[str, bool]]:
    """A reader of ``+NAME,-NAME``."""
    name_of = choice(spelled)

    def read(text: str) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for item in _items(text):
            if item[0] not in "+-":
                raise ValueError(f"{item!r} has no + or - before it")
            name = name_of(item[1:])
            if found.setdefault(name, item[0] == "+") != (item[0] == "+"):
                raise ValueError(f"{item[1:]} cannot be both on and off")
        return found

    return read


def pools(text: str) -> dict[str, int]:
    """``workspace:4096,tacticSharedMem:48K`` in bytes. Sizes may be decimal; without a unit, MiB."""
    limits: dict[str, int] = {}
    for item in _items(text):
        name, colon, size = item.rpartition(":")
        if not colon or name not in POOLS:
            raise ValueError(f"{item!r} does not start with one of {', '.join(POOLS)} and a colon")
        if POOLS[name] in limits:
            raise ValueError(f"{name} is given twice")
        limits[POOLS[name]] = _power_of_two(_size(size)) if name == "dlaSRAM" else _size(size)
    return limits


def _size(text: str) -> int:
    unit = text[-1:].upper()
    digits, factor = (text[:-1], _UNITS[unit]) if unit in _UNITS else (text, _UNITS["M"])
    try:
        size = Decimal(digits) * factor
    except InvalidOperation:
        size = Decimal(-1)
    if not (size.is_finite() and 0 <= size < 2**63):
        raise ValueError(f"{text!r} is not a size: a number, and B, K, M (the default) or G")
    return int(size)


def _power_of_two(size: int) -> int:
    """Rounded down, as trtexec does: DLA takes nothing else."""
    return min(1 << max(size.bit_length() - 1, 0), _DLA_SRAM_LIMIT)


def io_formats(text: str) -> tuple[str, ...]:
    """``fp16:chw+hwc8,fp32:chw``; without types where networks are strongly typed."""
    for item in _items(text):
        kind, colon, formats = item.rpartition(":")
        if colon and kind not in DATA_TYPES:
            raise ValueError(f"{kind!r} is not one of the types {', '.join(DATA_TYPES)}")
        for one in formats.split("+"):
            if one not in TENSOR_FORMATS:
                raise ValueError(f"{one!r} is not one of the formats {', '.join(TENSOR_FORMATS)}")
    return tuple(_items(text))


def layer_types(text: str) -> dict[str, str]:
    """``conv1:fp16,head*:fp32``; later ones override earlier ones."""
    found = dict(_named(item) for item in _items(text))
    return {name: _data_type(kind) for name, kind in found.items()}


def layer_output_types(text: str) -> dict[str, tuple[str, ...]]:
    """``split:fp16+fp32``, one type for each output of the layer."""
    found = dict(_named(item) for item in _items(text))
    return {name: tuple(_data_type(kind) for kind in kinds.split("+")) for name, kinds in found.items()}


def _data_type(text: str) -> str:
    if text not in DATA_TYPES:
        raise ValueError(f"{text!r} is not one of the types {', '.join(DATA_TYPES)}")
    return text


def shapes(text: str) -> dict[str, Shape]:
    """``x:1x3x224x224,'ids:0':1x128``; ``scalar`` or nothing after the colon is 0-D."""
    found: dict[str, Shape] = {}
    for item in _items(text):
        name, dims = _named(item)
        if "*" in name:
            raise ValueError(f"{name!r} has a wildcard; write one shape for each input")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        sizes = [] if dims in ("", "scalar") else dims.split("x")
        if not all(size.isascii() and size.isdigit() and int(size) for size in sizes):
            raise ValueError(
                f"{dims!r} is not a shape: sizes of 1 or more with x between them, as 1x3x224x224"
            )
        found[name] = tuple(map(int, sizes))
    return found


def files(text: str) -> dict[str, str]:
    """``x:x.bin,'ids:0':ids.bin``: paths by input."""
    found: dict[str, str] = {}
    for item in _items(text):
        name, path = _named(item)
        if not path:
            raise ValueError(f"{item!r} names no file")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = path
    return found


def broadcast(
    lowest: Mapping[str, Shape], best: Mapping[str, Shape], highest: Mapping[str, Shape]
) -> OptimizationProfile:
    """A profile from what was given; what is missing is taken from what is there, as in trtexec.

    Raises:
        ProfileInvalidError: min ≤ opt ≤ max does not hold.

    """
    ranges: dict[str, ShapeRange] = {}
    for name in dict.fromkeys((*lowest, *best, *highest)):
        low, opt, high = lowest.get(name), best.get(name), highest.get(name)
        given = [shape for shape in (opt, high, low) if shape is not None]
        try:
            ranges[name] = ShapeRange(
                min=given[0] if low is None else low,
                opt=(given[0] if high is None else high) if opt is None else opt,
                max=given[0] if high is None else high,
            )
        except ValidationError as error:
            reason = error.errors()[0].get("ctx", {}).get("error") or error.errors()[0]["msg"]
            raise ProfileInvalidError(f"Input {name!r}: {reason}") from error
    return OptimizationProfile(ranges)


def _items(text: str) -> Iterator[str]:
    for item in text.split(","):
        if not item.strip():
            raise ValueError("an item of the list is empty")
        yield item.strip()


def _named(item: str) -> tuple[str, str]:
    """Name and value at the last colon; single quotes protect a name that has colons of its own."""
    if "'" in item:
        before, _, rest = item.partition("'")
        name, quote, value = rest.rpartition("'")
        if before or not quote or "'" in name or not value.startswith(":"):
            raise ValueError(f"{item!r} is not 'name':value")
        value = value[1:]
    else:
        name, _, value = item.rpartition(":")
    if not name:
        raise ValueError(f"{item!r} does not start with a name and a colon")
    return name, value
