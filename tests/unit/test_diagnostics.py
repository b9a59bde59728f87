"""TensorRT's words, made readable. The messages are real: RTX 1.7.1's, and one in 8.6's form."""

from __future__ import annotations

import pytest

from trtfarm_worker.tensorrt.diagnostics import build_error

_BUILD = "IBuilder::buildSerializedNetwork: "
MESSAGES = {
    "format of the type": (
        (
            f"{_BUILD}Error Code 3: API Usage Error (x: has dataType Float unsupported by tensor's allowed "
            "TensorFormats. In operator() at /_src/optimizer/api/network.cpp:3537)"
        ),
        "FORMAT_UNSUPPORTED",
        "x: has dataType Float unsupported by tensor's allowed TensorFormats.",
    ),
    "no format": (
        (
            "[myelinBuilderFormats.cpp::cheapestMyelinConvergenceFormat::289] Error Code 2: Internal Error "
            "(Assertion allowedFormatSet != FormatSet::kNONE failed.  In cheapestMyelinConvergenceFormat at "
            "/_src/optimizer/myelin/myelinBuilderFormats.cpp:289)"
        ),
        "FORMAT_UNSUPPORTED",
        "Assertion allowedFormatSet != FormatSet::kNONE failed.",
    ),
    "no profile": (
        (
            f"{_BUILD}Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no "
            "optimization profile has been defined. In validate at /_src/optimizer/api/network.cpp:4023)"
        ),
        "PROFILE_INVALID",
        "Network has dynamic or shape inputs, but no optimization profile has been defined.",
    ),
    "workspace": (
        (
            f"{_BUILD}Error Code 1: Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic Selection: no "
            "tactics to implement the operation within workspace limit. Consider increase the allowed "
            "workspace size if applicable.; [tactic.cpp:264: run] Error during tactic selection. "
            "In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)"
        ),
        "NO_TACTIC",
        (
            "Tactic Selection: no tactics to implement the operation within workspace limit. Consider "
            "increase the allowed workspace size if applicable.; Error during tactic selection."
        ),
    ),
    "8.6": (
        (
            "10: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any "
            "implementation for node {ForeignNode[conv...relu]}.)"
        ),
        "NO_TACTIC",
        "Could not find any implementation for node {ForeignNode[conv...relu]}.",
    ),
    "gpu": (
        "CUDA initialization failure with error: 100. Please check your CUDA installation",
        "GPU_FAILED",
        "CUDA initialization failure with error: 100. Please check your CUDA installation",
    ),
    "memory of the gpu": (
        "1: [runner.cpp::sync::147] Error Code 1: Cuda Runtime (uncorrectable ECC error encountered)",
        "GPU_FAILED",
        "uncorrectable ECC error encountered",
    ),
    "another": ("Something new.", "BUILD_FAILED", "Something new."),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_first_error_without_source_locations(name: str) -> None:
    logged, code, message = MESSAGES[name]
    view = build_error([logged, "Error Code 2: what followed from it"])
    assert (view.code, view.message) == (code, message)
    assert view.hint


def test_no_word_at_all() -> None:
    assert build_error([]).message == "TensorRT gave no engine and no reason."
