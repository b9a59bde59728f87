"""`make bench`: prints a line a figure, beside a peer measured in the same run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from bench import claim, download, inspection, resolve, reuse, submissions, submit_to_plan
from bench.farm import Servers, servers
from bench.figures import HEADINGS, BenchError, Figure, line

FIGURES: dict[str, Callable[[Servers], list[Figure]]] = {
    module.NAME: module.measure
    for module in (submit_to_plan, submissions, reuse, download, claim, resolve, inspection)
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures the farm's figures, each beside a peer in the same run.",
        epilog="Exit status: 0 every goal is met, 1 one is missed, 2 a figure cannot be measured here.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument(
        "--only", action="append", choices=list(FIGURES), metavar="NAME", help=f"one of: {', '.join(FIGURES)}"
    )
    chosen = parser.parse_args()
    found: list[Figure] = []
    try:
        with servers() as private:
            if not chosen.json:
                print(line(HEADINGS), flush=True)
            for name in chosen.only or FIGURES:
                figures = FIGURES[name](private)
                found += figures
                if not chosen.json:
                    for figure in figures:
                        print(line(figure.cells()), flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if chosen.json:
        print(json.dumps({"figures": [figure.document() for figure in found]}, indent=1))
    return 0 if all(figure.met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
