"""A command that takes trtexec's build options beside its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import typer
from typer.core import TyperCommand

from trtfarm.contract.trtexec_options import OPTIONS

META_KEY = "trtfarm.trtexec"


class TrtexecCommand(TyperCommand):
    """Sets trtexec's options aside, in their order, under ``META_KEY`` of the context."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        own: dict[str, Any] = {
            name: parameter for parameter in self.get_params(ctx) for name in parameter.opts
        }
        takes_value = {option.spelling for option in OPTIONS if option.metavar}
        rest, trtexec = _split(args, own, takes_value)
        ctx.meta[META_KEY] = trtexec
        return super().parse_args(ctx, rest)

    def format_epilog(self, ctx: typer.Context, formatter: Any) -> None:
        super().format_epilog(ctx, formatter)
        formatter.write(options_help())


def _split(args: Sequence[str], own: dict[str, Any], takes_value: set[str]) -> tuple[list[str], list[str]]:
    rest: list[str] = []
    trtexec: list[str] = []
    position = 0
    while position < len(args):
        arg = args[position]
        position += 1
        name = arg.partition("=")[0]
        if arg == "--":
            return rest + list(args[position - 1 :]), trtexec
        mine = not arg.startswith("--") or name in own
        destination = rest if mine else trtexec
        destination.append(arg)
        if mine and name in own and not getattr(own[name], "is_flag", True) and "=" not in arg:
            rest.extend(args[position : position + 1])
            position += 1
        elif not mine and name in takes_value and "=" not in arg:
            trtexec.extend(args[position : position + 1])
            position += 1
    return rest, trtexec


def options_help() -> str:
    """Trtexec's build options, by group."""
    lines = ["", "trtexec's build options, with trtexec's spelling and meaning:"]
    for group, options in groupby(OPTIONS, key=lambda option: option.group):
        lines.append(f"\n  {group}")
        for option in options:
            left = f"{option.spelling}={option.metavar}" if option.metavar else option.spelling
            lines.append(f"    {left:<44} {option.help}")
    return "\n".join(lines) + "\n"
