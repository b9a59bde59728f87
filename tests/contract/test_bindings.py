"""The adapter's words against the real bindings of TensorRT 8.6, 10.16, 11.4 and RTX.

The bindings are real and say what each generation has. TensorRT itself is not there: options are set on
doubles that have the names of the real classes (``doubles.py``).
"""

from __future__ import annotations

import json
import subprocess
from typing import Any, NamedTuple

import pytest

from tests.contract.used_names import used
from tests.contract.wheels import GENERATIONS, RTX, python
from tests.meta.repository import ROOT
from tests.unit.test_support import WHERE
from trtfarm.contract.builder_config import DATA_TYPES, TENSOR_FORMATS
from trtfarm.contract.support import refuse_unsupported
from trtfarm.contract.target import Runtime
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.contract.trtexec_options import spelling_of
from trtfarm.contract.trtexec_values import POOLS
from trtfarm.contract.typed import converter_for, left_to_tensorrt
from trtfarm.errors import OptionUnsupportedError

WEAK = ("8.6", "10.16")  # precisions can be allowed beside the model's own
STRONG = ("11.4", RTX)
VERSIONS = {"8.6": "8.6.1", "10.16": "10.16.1.11", "11.4": "11.4.0.106", RTX: "1.7.1.116"}

# Names that the adapter uses only where they are: behind hasattr, or in answer to an option.
ABSENT = {
    ("8.6",): (
        "BuilderFlag.WEIGHT_STREAMING",
        "IBuilderConfig.progress_monitor",
        "INetworkDefinition.get_flag",
        "IProgressMonitor",
        "ITimingCache.queryKeys",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "ParserError.node_name",
        "ParserError.node_operator",
    ),
    ("8.6", "10.16", "11.4"): (
        "ComputeCapability",
        "IBuilderConfig.get_compute_capability",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
    ),
    ("8.6", *STRONG): ("BuilderFlag.BF16",),
    STRONG: (
        "Builder.platform_has_tf32",
        "BuilderFlag.FP16",
        "BuilderFlag.INT8",
        "ILayer.precision",
        "ILayer.set_output_type",
    ),
}

# Options that the bindings take, and support.py refuses all the same.
TAKEN_ALL_THE_SAME = {
    # RTX has the names, and they do nothing: it times no tactics and has neither timing cache nor DLA.
    "--builderOptimizationLevel=5": (RTX,),
    "--avgTiming=8": (RTX,),
    "--maxTactics=8": (RTX,),
    "--tacticSources=-JIT_CONVOLUTIONS": (RTX,),
    "--tacticSources=+EDGE_MASK_CONVOLUTIONS": (RTX,),
    "--tilingOptimizationLevel=1": (RTX,),
    "--tilingOptimizationLevel=3": (RTX,),
    "--l2LimitForTiling=1": (RTX,),
    "--noBuilderCache": (RTX,),
    "--noCompilationCache": (RTX,),
    "--errorOnTimingCacheMiss": (RTX,),
    "--hardwareCompatibilityLevel=ampere+": (RTX,),
    "--hardwareCompatibilityLevel=sameComputeCapability": (RTX,),
    "--useDLACore=0": (RTX,),
    "--allowGPUFallback": (RTX,),
    "--memPoolSize=dlaSRAM:1": (RTX,),
    "--memPoolSize=dlaLocalDRAM:1": (RTX,),
    "--memPoolSize=dlaGlobalDRAM:1": (RTX,),
    # The converter would refuse it.
    "--fp16 --precisionConstraints=obey --layerPrecisions=a:int8": (RTX, "11.4"),
    # Its builds then fail: there is no lean runtime, and no GPU driver.
    "--versionCompatible": (RTX,),
    "--refit": (RTX,),
    "--stripWeights": (RTX,),
    "--stripAllWeights": (RTX,),
    # trtexec demands the type where there is one.
    **{f"--inputIOFormats={name}": WEAK for name in TENSOR_FORMATS},
}

# For a network of one input and one output.
_COUNTED = (
    "--outputIOFormats=fp32:chw,hwc8",
    "--precisionConstraints=prefer --layerOutputTypes=a:fp16+int64",
)
LINES = tuple(
    dict.fromkeys(
        (
            *(line for line in WHERE if line not in _COUNTED),
            *(f"--inputIOFormats={name}" for name in TENSOR_FORMATS),
            *(f"--outputIOFormats=fp32:{name}" for name in TENSOR_FORMATS),
            *(f"--inputIOFormats={name}:chw" for name in DATA_TYPES),
            *(f"--precisionConstraints=prefer --layerPrecisions=a:{name}" for name in DATA_TYPES),
            *(f"--precisionConstraints=obey --layerOutputTypes=a:{name}" for name in DATA_TYPES),
            *(f"--memPoolSize={name}:1" for name in POOLS),
            *(f"--tacticSources=+{name}" for name in ("CUBLAS", "CUDNN", "EDGE_MASK_CONVOLUTIONS")),
            "--profilingVerbosity=none",
            "--tilingOptimizationLevel=3",
        )
    )
)


class Case(NamedTuple):
    options: str
    quantized: bool = True
    dla_cores: int = 1
    deaf: bool = False


NEEDS_DLA = ("--useDLACore=0", "--allowGPUFallback", "--memPoolSize=dlaSRAM:1")
WILDCARDS = "--precisionConstraints=obey --layerPrecisions=*:fp16,block/*:int8,a:fp32"
OUTPUT_TYPES = "--precisionConstraints=prefer --layerOutputTypes=*:fp16"
UNKNOWN_LAYERS = tuple(
    f"--precisionConstraints=obey --layer{what}=a:fp32,{name}:fp16"
    for what in ("Precisions", "OutputTypes")
    for name in ("zzz", "zzz*", "**")
)
TOO_MANY = (
    "--precisionConstraints=obey --layerOutputTypes=a:fp16+fp32",
    "--inputIOFormats=fp32:chw,fp32:chw",
    "--outputIOFormats=chw,chw",
)
CASES = tuple(
    dict.fromkeys(
        (
            *(Case(line) for line in LINES),
            *(Case(line, deaf=True) for line in LINES),
            *(Case(line, quantized=False) for line in ("--int8", "--best")),
            *(Case(line, dla_cores=0) for line in NEEDS_DLA),
            *(Case(line) for line in (WILDCARDS, OUTPUT_TYPES, *UNKNOWN_LAYERS, *TOO_MANY)),
            *(Case(line) for line in ("--inputIOFormats=fp16:chw+hwc8", "--useDLACore=1")),
        )
    )
)


class Answers(NamedTuple):
    version: str
    missing: list[str]
    targets: list[str]
    outcomes: dict[Case, dict[str, Any]]

    def refused(self, case: Case) -> str | None:
        """The code."""
        return self.outcomes[case].get("code")


@pytest.fixture(scope="module")
def all_answers() -> dict[str, Answers]:
    return {generation: _ask(generation) for generation in GENERATIONS}


def _ask(generation: str) -> Answers:
    command, environment = python(generation)
    questions = {"names": sorted(used()), "cases": [case._asdict() for case in CASES]}
    flavour = "tensorrt-rtx" if generation == RTX else "tensorrt"
    done = subprocess.run(
        [*command, "-m", "tests.contract.probe", flavour],
        input=json.dumps(questions), env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return Answers(**answer | {"outcomes": dict(zip(CASES, answer["outcomes"], strict=True))})


@pytest.fixture(params=GENERATIONS)
def generation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def answers(all_answers: dict[str, Answers], generation: str) -> Answers:
    return all_answers[generation]


def allowed(line: str, generation: str) -> bool:
    """By support.py, which knows no bindings."""
    runtime = Runtime("tensorrt-rtx" if generation == RTX else "tensorrt", VERSIONS[generation])
    try:
        refuse_unsupported(parse_build_options(line.split()).config, runtime)
    except OptionUnsupportedError:
        return False
    return True


def test_the_bindings_are_those_that_are_meant(answers, generation):
    assert answers.version == VERSIONS[generation]


def test_every_name_exists_or_is_known_to_be_absent(answers, generation):
    assert len(used()) > 100
    declared = [name for where, names in ABSENT.items() if generation in where for name in names]
    assert sorted(answers.missing) == sorted(declared)


def test_ahead_of_time_targets(answers, generation):
    six = ["cc-12.0", "cc-12.1", "cc-7.5", "cc-8.0", "cc-8.6", "cc-8.9"]
    assert answers.targets == (six if generation == RTX else [])


def test_what_is_promised_is_in_the_bindings_and_the_other_way_round(answers, generation):
    wrong = {}
    for line in LINES:
        outcome = answers.outcomes[Case(line)]
        expected = allowed(line, generation) or generation in TAKEN_ALL_THE_SAME.get(line, ())
        if expected != ("code" not in outcome):
            wrong[line] = outcome.get("message", "is taken")
    assert wrong == {}


def test_exceptions_are_exceptions(generation):
    wrong = [
        line
        for line, where in TAKEN_ALL_THE_SAME.items()
        if generation in where and allowed(line, generation)
    ]
    assert wrong == []


def test_refusals_are_by_name(answers, generation):
    for line in LINES:
        outcome = answers.outcomes[Case(line)]
        if "code" in outcome:
            assert outcome["code"] == "OPTION_UNSUPPORTED"
            asked = parse_build_options(line.split()).config.canonical()
            assert outcome["message"].split()[0] in map(spelling_of, asked)
            assert VERSIONS[generation] in outcome["message"]


def _set(line: str, generation: str) -> dict[str, Any]:
    """What is asked of TensorRT, and not of the converter."""
    flavour = "tensorrt-rtx" if generation == RTX else "tensorrt"
    config = parse_build_options(line.split()).config
    converter = converter_for(config, f"{flavour}-{VERSIONS[generation]}")
    return left_to_tensorrt(config, converter).canonical()


def test_every_setter_is_read_back(answers, generation):
    """A TensorRT that keeps something else than it was told is noticed, whatever the option."""
    taken = [line for line in LINES if "code" not in answers.outcomes[Case(line)]]
    no_setter = {"strongly_typed"}  # a property of the network
    deaf = [line for line in taken if set(_set(line, generation)) - no_setter]
    assert len(deaf) > 30
    assert {line for line in deaf if answers.refused(Case(line, deaf=True)) != "OPTION_UNSUPPORTED"} == set()


@pytest.mark.parametrize("option", ["--int8", "--best"])
def test_int8_needs_ranges(all_answers, option):
    for generation in WEAK:
        outcome = all_answers[generation].outcomes[Case(option, quantized=False)]
        assert outcome["code"] == "OPTION_UNSUPPORTED"
        assert outcome["message"].startswith(f"{option} needs the ranges of the tensors")
        assert "Q/DQ" in outcome["hint"]


def test_best_is_what_there_is(all_answers):
    assert all_answers["8.6"].outcomes[Case("--best")]["flags"] == ["FP16", "INT8"]
    assert all_answers["10.16"].outcomes[Case("--best")]["flags"] == ["BF16", "FP16", "INT8"]


@pytest.mark.parametrize("option", NEEDS_DLA)
def test_without_a_dla(answers, option):
    outcome = answers.outcomes[Case(option, dla_cores=0)]
    assert outcome["code"] == "OPTION_UNSUPPORTED"
    assert "this machine has none" in outcome["message"]


def test_dla_cores_are_counted_from_zero(answers):
    assert answers.outcomes[Case("--useDLACore=0")]["dla_core"] == 0
    assert answers.refused(Case("--useDLACore=1")) == "OPTION_UNSUPPORTED"


@pytest.mark.parametrize("generation", WEAK)
def test_layer_precisions(answers):
    """The exact name first, then the longest pattern; a pattern passes over shapes and integer constants."""
    outcome = answers.outcomes[Case(WILDCARDS)]
    assert outcome["flags"] == ["OBEY_PRECISION_CONSTRAINTS"]
    assert outcome["precisions"] == {
        "a": "FLOAT", "block/b": "INT8", "shape": "INT32", "weights": "FLOAT", "q": "HALF",
    }  # fmt: skip


@pytest.mark.parametrize("generation", WEAK)
def test_layer_output_types(answers):
    outcome = answers.outcomes[Case(OUTPUT_TYPES)]
    assert outcome["flags"] == ["PREFER_PRECISION_CONSTRAINTS"]
    kinds = outcome["output_types"]
    assert {name: kinds[name] for name in ("a", "block/b", "shape", "weights")} == {
        "a": ["HALF"], "block/b": ["HALF"], "shape": [], "weights": [],
    }  # fmt: skip


@pytest.mark.parametrize("generation", WEAK)
def test_names_that_no_layer_has(answers):
    for line in UNKNOWN_LAYERS:
        outcome = answers.outcomes[Case(line)]
        assert outcome["code"] == "VALIDATION_ERROR"
        assert "the network has no layer" in outcome["message"]
        assert outcome["hint"].startswith("Its layers: a, ")


@pytest.mark.parametrize("generation", WEAK)
def test_types_and_formats_together(answers):
    outcome = answers.outcomes[Case("--inputIOFormats=fp16:chw+hwc8")]
    assert outcome["types"] == {"x": "HALF", "y": "FLOAT"}
    assert outcome["formats"] == {"x": 1 << 0 | 1 << 2, "y": 0}


@pytest.mark.parametrize("line", TOO_MANY)
def test_counts_must_fit_the_network(all_answers, line):
    for generation in WEAK:
        assert all_answers[generation].refused(Case(line)) == "VALIDATION_ERROR"
