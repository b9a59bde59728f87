from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.profiles import (
    MAX_PROFILES,
    OptimizationProfile,
    ShapeRange,
    TensorInfo,
    check_profiles,
)
from trtfarm.errors import ProfileInvalidError, ProfileRequiredError

FIXED = TensorInfo(name="image", dtype="float", shape=(1, 3, 224, 224))
BATCHED = TensorInfo(name="ids", dtype="int64", shape=(-1, 128))
UNKNOWN_RANK = TensorInfo(name="any", dtype="float", shape=None)
SCALAR = TensorInfo(name="scale", dtype="float", shape=())


def profile(**inputs: list[tuple[int, ...]]) -> OptimizationProfile:
    return OptimizationProfile(
        {name: ShapeRange(min=low, opt=best, max=high) for name, (low, best, high) in inputs.items()}
    )


IDS = profile(ids=[(1, 128), (8, 128), (32, 128)])


# --- ranges ---


@given(st.lists(st.tuples(*[st.integers(1, 2**31 - 1)] * 3).map(sorted), max_size=8))
def test_a_range_holds_what_is_in_order(axes):
    low, best, high = (tuple(axis[which] for axis in axes) for which in range(3))
    shapes = ShapeRange(min=low, opt=best, max=high)
    assert ShapeRange.model_validate_json(shapes.model_dump_json()) == shapes


@pytest.mark.parametrize(
    ("low", "best", "high"),
    [
        ((2,), (1,), (3,)),
        ((1,), (4,), (3,)),
        ((3,), (2,), (1,)),
        ((1, 5), (2, 4), (3, 6)),
        ((1,), (1, 1), (1,)),
        ((), (1,), (1,)),
    ],
)
def test_a_range_out_of_order_or_of_several_ranks_is_refused(low, best, high):
    with pytest.raises(ValidationError, match="min") as refusal:
        ShapeRange(min=low, opt=best, max=high)
    assert isinstance(refusal.value.errors()[0]["ctx"]["error"], ProfileInvalidError)


@pytest.mark.parametrize("dim", [0, -1, 2**31, 1.5, "x", None])
def test_dimensions_are_whole_and_at_least_one(dim):
    with pytest.raises(ValidationError):
        ShapeRange(min=(dim,), opt=(dim,), max=(dim,))


def test_profiles_are_values():
    one = profile(a=[(1,), (2,), (3,)], b=[(1,), (1,), (1,)])
    other = profile(b=[(1,), (1,), (1,)], a=[(1,), (2,), (3,)])
    assert one == other
    assert hash(one) == hash(other)
    assert one != profile(a=[(1,), (2,), (4,)], b=[(1,), (1,), (1,)])
    with pytest.raises(ValidationError, match="frozen"):
        one.root = {}


def test_a_tensor_says_what_it_is():
    assert [str(tensor) for tensor in (FIXED, BATCHED, UNKNOWN_RANK, SCALAR)] == [
        "image:1x3x224x224",
        "ids:?x128",
        "any:?",
        "scale:",
    ]
    assert [tensor.dynamic for tensor in (FIXED, BATCHED, UNKNOWN_RANK, SCALAR)] == [False, True, True, False]


@pytest.mark.parametrize("name", ["\x00", "a\x00b", "a\x00", "\n\x00"])
def test_names_with_a_nul_are_refused(name):
    with pytest.raises(ValidationError, match="pattern"):
        profile(**{name: [(1,), (1,), (1,)]})
    with pytest.raises(ValidationError, match="pattern"):
        BuilderConfig(precision_constraints="obey", layer_precisions={name: "fp16"})


@pytest.mark.parametrize("name", ["x", "ids:0", "a b", "line\nbreak\n", "入力", "'"])
def test_other_names_are_kept(name):
    assert list(profile(**{name: [(1,), (1,), (1,)]}).root) == [name]


# --- profiles against a model ---


@pytest.mark.parametrize(
    ("profiles", "inputs"),
    [
        ((), ()),
        ((), (FIXED, SCALAR)),
        ((IDS,), (BATCHED,)),
        ((IDS, IDS), (BATCHED, FIXED)),
        ((profile(image=[(1, 3, 224, 224)] * 3),), (FIXED,)),
        ((profile(any=[(1, 2), (3, 4), (5, 6)]),), (UNKNOWN_RANK,)),
        ((profile(scale=[(), (), ()]),), (SCALAR,)),
        ((IDS,) * MAX_PROFILES, (BATCHED,)),
    ],
)
def test_profiles_that_fit(profiles, inputs):
    check_profiles(profiles, inputs)


@pytest.mark.parametrize(
    ("profiles", "inputs", "example"),
    [
        ((), (FIXED, BATCHED), "--optShapes=ids:1x128"),
        ((), (UNKNOWN_RANK,), "--optShapes=any:"),
        ((IDS, profile()), (BATCHED,), "--optShapes=ids:1x128"),
        ((IDS,), (BATCHED, UNKNOWN_RANK), "--optShapes=any:"),
    ],
)
def test_every_profile_names_every_dynamic_input(profiles, inputs, example):
    with pytest.raises(ProfileRequiredError) as refusal:
        check_profiles(profiles, inputs)
    assert example in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("wrong", "inputs", "words"),
    [
        (profile(idz=[(1, 128)] * 3), (BATCHED,), "no input 'idz'"),
        (profile(ids=[(1, 64), (8, 128), (32, 128)]), (BATCHED,), "1x64 does not fit"),
        (profile(ids=[(1, 128), (8, 128), (32, 256)]), (BATCHED,), "32x256 does not fit"),
        (profile(ids=[(1,)] * 3), (BATCHED,), "does not fit"),
        (profile(ids=[(1, 128, 1)] * 3), (BATCHED,), "does not fit"),
        (profile(scale=[(1,)] * 3), (SCALAR,), "does not fit"),
        (profile(image=[(2, 3, 224, 224)] * 3), (FIXED,), "does not fit"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(wrong, inputs, words):
    with pytest.raises(ProfileInvalidError, match=words):
        check_profiles((wrong,), inputs)


def test_an_unknown_input_is_answered_with_the_known_ones():
    with pytest.raises(ProfileInvalidError) as refusal:
        check_profiles((profile(x=[(1,)] * 3),), (FIXED, BATCHED))
    assert refusal.value.hint == "Its inputs: image:1x3x224x224, ids:?x128."


def test_too_many_profiles():
    with pytest.raises(ProfileInvalidError, match="65 profiles"):
        check_profiles((IDS,) * (MAX_PROFILES + 1), (BATCHED,))
