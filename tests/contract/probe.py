"""Run with one generation's bindings: which of the given names they have, and what options do there.

python -m tests.contract.probe FLAVOUR < QUESTIONS > ANSWERS
"""

from __future__ import annotations

import json
import operator
import sys
from typing import Any

from tests.contract.doubles import Build
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.contract.typed import converter_for, left_to_tensorrt
from trtfarm.errors import TrtFarmError
from trtfarm_worker.tensorrt import bindings, options


def missing(trt: Any, names: list[str]) -> list[str]:
    found = []
    for name in names:
        try:
            operator.attrgetter(name)(trt)
        except AttributeError:
            found.append(name)
    return found


def outcome(trt: Any, case: dict[str, Any]) -> dict[str, Any]:
    """The summary of a build's objects, or the error that refused the options."""
    config = parse_build_options(case["options"].split()).config
    runtime = f"{trt.__name__}-{trt.__version__}".replace("_", "-")
    build = Build(
        trt,
        strongly_typed=bool(config.strongly_typed),
        quantized=case["quantized"],
        dla_cores=case["dla_cores"],
        deaf=case["deaf"],
    )
    try:
        options.prepare_parser(trt, build.parser, config)
        options.apply(build.setup, left_to_tensorrt(config, converter_for(config, runtime)))
    except TrtFarmError as error:
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return build.summary()


def main() -> None:
    questions = json.load(sys.stdin)
    trt = bindings.load(sys.argv[1])
    answers = {
        "version": trt.__version__,
        "missing": missing(trt, questions["names"]),
        "outcomes": [outcome(trt, case) for case in questions["cases"]],
        "targets": sorted(bindings.capabilities(trt)),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
