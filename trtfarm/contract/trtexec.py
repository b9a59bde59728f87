"""trtexec's command line, in its spelling and meaning.

Nothing is ignored: an option is honoured, or refused with the reason and what to do instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from trtfarm.contract import trtexec_values as values
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.profiles import MAX_PROFILES, OptimizationProfile, Shape
from trtfarm.contract.trtexec_options import OPTIONS, PROFILE, TOOL, Option
from trtfarm.contract.trtexec_refused import REFUSED
from trtfarm.contract.value import Value
from trtfarm.errors import (
    InvalidRequestError,
    OptionUnknownError,
    OptionUnsupportedError,
    ProfileInvalidError,
)

__all__ = ["OPTIONS", "Option", "TrtexecOptions", "parse_build_options"]

_RANGE = ("--minShapes", "--optShapes", "--maxShapes")
_Given = list[tuple[Option, str]]


class TrtexecOptions(Value):
    """A command line, read.

    Attributes:
        tool: what the client does itself: ``save_engine`` and ``timing_cache_file`` (paths as
            written), ``verbose``, ``skip_inference``.

    """

    config: BuilderConfig = BuilderConfig()
    profiles: tuple[OptimizationProfile, ...] = ()
    tool: dict[str, str | bool] = Field(default_factory=dict)


def parse_build_options(args: Sequence[str]) -> TrtexecOptions:
    """Reads ``--option=value``, ``--option value`` and switches.

    Raises:
        OptionUnknownError: trtexec has no such option.
        OptionUnsupportedError: trtexec has it, a build of the farm does not.
        InvalidRequestError: a bad value, an option given twice, or options that exclude one another.
        ProfileInvalidError: shapes that cannot be read or contradict one another.

    """
    given = list(_split(args))
    config: dict[str, Any] = {}
    tool: dict[str, str | bool] = {}
    seen: set[str] = set()
    for option, text in given:
        if option.group == PROFILE:
            continue
        if option.spelling in seen:
            raise InvalidRequestError(f"{option.spelling} is given twice.")
        seen.add(option.spelling)
        (tool if option.group == TOOL else config).update(_read(option, text))
    return TrtexecOptions(config=BuilderConfig(**config), profiles=_profiles(given), tool=tool)


def _split(args: Sequence[str]) -> Iterator[tuple[Option, str]]:
    options = {option.spelling: option for option in OPTIONS}
    rest = iter(range(len(args)))
    for place in rest:
        name, equals, text = args[place].partition("=")
        option = options.get(name)
        if option is None:
            raise _no_such(name)
        if not option.metavar and equals:
            raise InvalidRequestError(
                f"{name} is a switch and takes no value.", hint=f"Write {name}, or leave it out."
            )
        if option.metavar and not equals:
            following = next(rest, None)
            text = "" if following is None else args[following]
            if text.startswith("--"):
                text = ""
        if option.metavar and not text:
            raise InvalidRequestError(f"{name} needs a value.", hint=f"Write {name}={option.metavar}.")
        yield option, text


def _no_such(name: str) -> OptionUnknownError | OptionUnsupportedError:
    if name in REFUSED:
        refusal = REFUSED[name]
        return OptionUnsupportedError(f"{name} {refusal.reason}.", hint=refusal.alternative, option=name)
    if not name.startswith("-"):
        return OptionUnknownError(
            f"{name[:80]!r} is not an option.", hint="Options start with --.", option=name[:80]
        )
    spellings = (*REFUSED, *(option.spelling for option in OPTIONS))
    known = {spelling.removeprefix("--").lower(): spelling for spelling in spellings}
    near = difflib.get_close_matches(name.lstrip("-").lower(), known, n=1, cutoff=0.6)
    hint = f"Did you mean {known[near[0]]}?" if near else "trtfarm build --help lists the options."
    return OptionUnknownError(f"There is no option {name[:80]}.", hint=hint, option=name[:80])


def _read(option: Option, text: str) -> dict[str, Any]:
    try:
        return dict(option.read(text))
    except ValueError as error:
        raise InvalidRequestError(
            f"{option.spelling}={text[:200]}: {error}.",
            hint=f"Write {option.spelling}={option.metavar}.",
            option=option.spelling,
        ) from error


def _shapes(option: Option, text: str) -> dict[str, Shape]:
    try:
        return values.shapes(text)
    except ValueError as error:
        raise ProfileInvalidError(
            f"{option.spelling}={text[:200]}: {error}.", hint=f"Write {option.spelling}={option.metavar}."
        ) from error


def _profiles(given: _Given) -> tuple[OptimizationProfile, ...]:
    """One profile from plain shapes, or those after ``--profile=N``, in the order of N."""
    plain: dict[str, dict[str, Shape]] = {}
    groups: dict[int, dict[str, dict[str, Shape]]] = {}
    current: dict[str, dict[str, Shape]] | None = None
    extra: dict[str, Shape] = {}
    for option, text in given:
        if option.spelling == "--profile":
            current = groups[_index(text, groups)] = {}
        elif option.spelling in _RANGE:
            into = plain if current is None else current
            if option.spelling in into:
                raise ProfileInvalidError(
                    f"{option.spelling} is given twice.", hint="Begin each profile with --profile=N."
                )
            into[option.spelling] = _shapes(option, text)
        else:
            current = None
            if option.spelling == "--shapes":
                extra = _more(extra, _shapes(option, text))
    if groups and plain:
        raise ProfileInvalidError(
            f"{' and '.join(plain)} must come directly after the --profile=N that they belong to."
        )
    for number in range(len(groups)):
        if not groups.get(number):
            raise ProfileInvalidError(
                f"Profile {number} has no shapes.",
                hint="Number the profiles from 0, and give each one shapes.",
            )
    return _finish([groups[number] for number in sorted(groups)] or ([plain] if plain else []), extra)


def _index(text: str, groups: dict[int, Any]) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < MAX_PROFILES):
        raise ProfileInvalidError(f"--profile={text[:80]}: it is not a number from 0 to {MAX_PROFILES - 1}.")
    if int(text) in groups:
        raise ProfileInvalidError(f"--profile={text} is given twice.")
    return int(text)


def _more(extra: dict[str, Shape], shapes: dict[str, Shape]) -> dict[str, Shape]:
    if extra:
        raise ProfileInvalidError("--shapes is given twice.")
    return shapes


def _finish(
    groups: list[dict[str, dict[str, Shape]]], extra: dict[str, Shape]
) -> tuple[OptimizationProfile, ...]:
    """``--shapes`` fixes inputs that the first profile does not name, as in trtexec."""
    if extra and not groups:
        groups = [{}]
    for spelling in _RANGE if extra else ():
        named = groups[0].setdefault(spelling, {})
        both = sorted(extra.keys() & named.keys())
        if both:
            raise OptionUnsupportedError(
                f"--shapes gives {', '.join(both)} a shape for inference, since {spelling} names it too.",
                hint="Give --shapes to trtfarm benchmark.",
                option="--shapes",
            )
    for spelling in _RANGE if extra else ():
        groups[0][spelling] |= extra
    return tuple(values.broadcast(*(group.get(spelling, {}) for spelling in _RANGE)) for group in groups)
