"""Build keys: frozen by golden files, and the same exactly where the build is the same."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tests.unit.test_builder_config import EVERYTHING
from tests.values import TARGET, spec
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.profiles import OptimizationProfile, ShapeRange
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.typed import CONVERTER
from trtfarm.contract.value import canonical_json

# Whoever changes one of these files gives every plan of that kind a new key: see KEY_VERSION.
GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "build_key").glob("*.json"))

ON_BY_DEFAULT = {"tf32": True}
OFF_BY_DEFAULT = {name: False for name, value in EVERYTHING.items() if value is True} | {"fp8": False}
NAMED_DEFAULTS = {
    "sparsity": "disable",
    "profiling_verbosity": "layer_names_only",
    "hardware_compatibility_level": "none",
    "precision_constraints": "none",
    "tiling_optimization_level": 0,
}
EMPTY = {name: type(value)() for name, value in EVERYTHING.items() if isinstance(value, dict | list)}
DEFAULTS = OFF_BY_DEFAULT | ON_BY_DEFAULT | NAMED_DEFAULTS | EMPTY
del DEFAULTS["native_instance_norm"]  # False is an order, and True as well


# --- golden files ---


def test_there_are_golden_files():
    assert len(GOLDEN) >= 8


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path):
    golden = json.loads(path.read_text("utf-8"))
    build = BuildSpec.model_validate(golden["spec"])
    assert canonical_json(build.canonical()).decode("ascii") == golden["canonical"]
    assert build.build_key == golden["build_key"]
    assert Digest.of_bytes(golden["canonical"].encode("ascii")).hex == golden["build_key"]


def test_golden_specs_are_different_builds():
    keys = [json.loads(path.read_text("utf-8"))["build_key"] for path in GOLDEN]
    assert len(set(keys)) == len(keys)


# --- the same build, the same key ---


def shuffled(document: Any, random: Random) -> Any:
    """With the keys of every object in another order."""
    if isinstance(document, dict):
        items = [(name, shuffled(value, random)) for name, value in document.items()]
        random.shuffle(items)
        return dict(items)
    return [shuffled(item, random) for item in document] if isinstance(document, list) else document


@given(strategies.build_specs, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(build, random):
    document = shuffled(build.model_dump(mode="json"), random)
    assert BuildSpec.model_validate(document).build_key == build.build_key


@given(strategies.build_specs, st.randoms(use_true_random=False))
def test_the_order_of_plugins_does_not_matter(build, random):
    plugins = list(build.plugins)
    random.shuffle(plugins)
    assert build.model_copy(update={"plugins": tuple(plugins)}).build_key == build.build_key


@given(strategies.build_specs, st.sets(st.sampled_from(sorted(DEFAULTS))))
def test_spelling_out_defaults_does_not_matter(build, spelt_out):
    document = build.model_dump(mode="json", exclude_none=True)
    document["config"] = {name: DEFAULTS[name] for name in spelt_out} | document["config"]
    assert BuildSpec.model_validate(document) == build
    assert BuildSpec.model_validate(document).build_key == build.build_key


def test_a_spec_of_defaults_is_model_and_target():
    document = {
        "model": spec().model,
        "target": TARGET.model_dump(mode="json", exclude={"platform"}),
        "config": DEFAULTS,
        "profiles": [],
        "plugins": [],
        "calibration": None,
    }
    assert BuildSpec.model_validate(document) == BuildSpec(model=spec().model, target=TARGET)
    assert set(BuildSpec.model_validate(document).canonical()) == {"key_version", "model", "target"}


@given(strategies.build_specs)
def test_a_spec_comes_back_from_its_document_with_its_key(build):
    for document in (build.model_dump(mode="json"), build.model_dump(mode="json", exclude_none=True)):
        assert BuildSpec.model_validate(document) == build
        assert BuildSpec.model_validate_json(json.dumps(document)).build_key == build.build_key


@given(strategies.build_specs)
def test_the_canonical_form_is_ascii_and_sorted(build):
    text = canonical_json(build.canonical()).decode("ascii")
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
    assert len(build.build_key) == 64


# --- another build, another key ---


def meaning(build: BuildSpec) -> dict[str, Any]:
    """What two specs of the same build have in common, by another way than the canonical form."""
    return build.model_dump() | {"plugins": sorted(build.plugins)}


@given(strategies.build_specs, strategies.build_specs, st.sampled_from(sorted(BuildSpec.model_fields)))
def test_keys_are_equal_exactly_if_the_builds_are(build, donor, field):
    other = build.model_copy(update={field: getattr(donor, field)})
    assert (other.build_key == build.build_key) == (meaning(other) == meaning(build))


@given(strategies.build_specs, strategies.targets(), st.sampled_from(["gpu", "runtime", "platform"]))
def test_every_part_of_the_target_counts(build, donor, field):
    target = build.target.model_copy(update={field: getattr(donor, field)})
    other = build.model_copy(update={"target": target})
    assert (other.build_key == build.build_key) == (target == build.target)


def test_every_option_has_a_key_of_its_own():
    examples = EVERYTHING | {"fp8": True, "strongly_typed": True, "native_instance_norm": False}
    assert set(examples) == set(BuilderConfig.model_fields)
    needed = {
        "exclude_lean_runtime": {"version_compatible": True},
        "layer_precisions": {"precision_constraints": "prefer"},
        "layer_output_types": {"precision_constraints": "prefer"},
    }
    configs = [BuilderConfig()]
    configs += [
        BuilderConfig.model_validate({name: value} | needed.get(name, {})) for name, value in examples.items()
    ]
    configs.append(BuilderConfig(precision_constraints="prefer"))
    configs.append(BuilderConfig(native_instance_norm=True))
    keys = [BuildSpec(model=spec().model, target=TARGET, config=config).build_key for config in configs]
    assert len(set(keys)) == len(configs)


def one_input(name: str, *shapes: tuple[int, ...]) -> OptimizationProfile:
    low, best, high = shapes
    return OptimizationProfile({name: ShapeRange(min=low, opt=best, max=high)})


def test_profiles_count_with_their_order_their_names_and_every_size():
    one, two = one_input("x", (1, 3), (2, 3), (4, 3)), one_input("x", (1, 3), (4, 3), (4, 3))
    several = [
        (),
        (one,),
        (two,),
        (one, two),
        (two, one),
        (one, one),
        (one_input("y", (1, 3), (2, 3), (4, 3)),),
        (one_input("x", (1,), (2,), (4,)),),
        (one_input("x", (1, 3), (2, 3), (5, 3)),),
        (one_input("a\u0301", (1,), (1,), (1,)),),
        (one_input("\N{LATIN SMALL LETTER A WITH ACUTE}", (1,), (1,), (1,)),),
    ]
    for some, others in combinations(several, 2):
        assert spec().model_copy(update={"profiles": some}).build_key != (
            spec().model_copy(update={"profiles": others}).build_key
        )


def test_the_converter_counts_where_there_is_one():
    typed = TARGET.model_copy(update={"runtime": "tensorrt-rtx-1.7.1.116"})
    weak = TARGET.model_copy(update={"runtime": "tensorrt-10.16.1.11"})
    half = BuildSpec(model=spec().model, target=typed, config=BuilderConfig(fp16=True))
    assert half.converter == CONVERTER
    assert half.canonical()["converter"] == CONVERTER
    other = half.model_copy(update={"converter": "onnxruntime-9.9.9"})
    assert other.build_key != half.build_key
    assert BuildSpec(model=spec().model, target=weak, config=BuilderConfig(fp16=True)).converter is None
    assert BuildSpec(model=spec().model, target=typed).converter is None
