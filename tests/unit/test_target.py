from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trtfarm.contract.target import (
    Runtime,
    Slug,
    Target,
    capability_target,
    gpu_slug,
    parse_capability,
    queue_name,
)
from trtfarm.errors import UnknownGpuError, UnknownRuntimeError

ADA = {"gpu": "cc-8.9", "compute_capability": "8.9", "runtime": "tensorrt-rtx-1.7.1.116"}
FOREIGN_EIGHT = "\N{ARABIC-INDIC DIGIT EIGHT}"


# --- runtimes ---


@pytest.mark.parametrize(
    ("text", "flavour", "version"),
    [
        ("tensorrt", "tensorrt", ""),
        ("tensorrt-rtx", "tensorrt-rtx", ""),
        ("tensorrt-8.6.0", "tensorrt", "8.6.0"),
        ("tensorrt-rtx-1.7.1.116", "tensorrt-rtx", "1.7.1.116"),
        (" TensorRT-RTX-1.7 ", "tensorrt-rtx", "1.7"),
    ],
)
def test_runtimes(text, flavour, version):
    runtime = Runtime.parse(text)
    assert runtime == (flavour, version)
    assert Runtime.parse(str(runtime)) == runtime


@pytest.mark.parametrize(
    "text",
    [
        *("", "trt", "tensorrt-", "tensorrt-8", "tensorrt-8.", "tensorrt-8.6.x", "tensorrt-rtx-", "rtx-1.7"),
        *("tensorrt-8.6 0", "tensorrt-8..6", "tensorrt_rtx", f"tensorrt-{FOREIGN_EIGHT}.6"),
    ],
)
def test_what_is_not_a_runtime(text):
    with pytest.raises(UnknownRuntimeError) as refusal:
        Runtime.parse(text)
    assert refusal.value.hint


def test_versions_are_ordered_as_numbers():
    versions = ["tensorrt-10.16.1", "tensorrt-8.6.0", "tensorrt-11.4.0.106", "tensorrt-10.3.0"]
    ordered = sorted(versions, key=lambda text: Runtime.parse(text).version_numbers)
    assert ordered == ["tensorrt-8.6.0", "tensorrt-10.3.0", "tensorrt-10.16.1", "tensorrt-11.4.0.106"]
    assert Runtime("tensorrt").version_numbers == ()


# --- targets ---


def test_the_platform_is_linux_unless_said():
    target = Target.model_validate(ADA)
    assert target.platform == "linux-x86_64"
    assert target == Target.model_validate(ADA | {"platform": "linux-x86_64"})
    assert target.queue == queue_name(target.runtime, target.gpu) == "tensorrt-rtx-1.7.1.116.cc-8.9"


@pytest.mark.parametrize("gpu", ["h200", "rtx-4090", "a100-sxm4-80gb", "h200+mig-1g.18gb", "cc-12.0"])
def test_gpus_of_targets(gpu):
    assert Target.model_validate(ADA | {"gpu": gpu}).gpu == gpu


@pytest.mark.parametrize(
    "wrong",
    [
        *({"gpu": gpu} for gpu in ("", "H200", "rtx 4090", "-l4", "l4-", "l4\n", "a/b", "l" * 81, "é")),
        *({"compute_capability": text} for text in ("", "8", "89", "8.9.1", "cc-8.9", "8.9\n")),
        {"compute_capability": f"{FOREIGN_EIGHT}.9"},
        *({"runtime": text} for text in ("", "trt-8.6", "tensorrt-8", "tensorrt-8.6.0\n", "TensorRT-8.6")),
        {"runtime": f"tensorrt-{FOREIGN_EIGHT}.6"},
        *({"platform": text} for text in ("", "linux/x86_64", "Linux", "linux x86")),
        {"driver": "550"},
    ],
)
def test_what_is_not_a_target(wrong):
    with pytest.raises(ValidationError):
        Target.model_validate(ADA | wrong)


def test_targets_are_values():
    target = Target.model_validate(ADA)
    assert {target: 1}[Target.model_validate(dict(reversed(ADA.items())))] == 1
    with pytest.raises(ValidationError, match="frozen"):
        target.gpu = "l4"


# --- capabilities ---


@pytest.mark.parametrize(
    "text", ["cc-8.9", "CC8.9", "cc_8.9", "sm_89", "SM-89", "sm89", "8.9", "89", " 8.9 ", "08.9"]
)
def test_spellings_of_a_capability(text):
    assert parse_capability(text) == "8.9"


@pytest.mark.parametrize("text", ["cc-12.0", "sm_120", "120", "12.0"])
def test_capabilities_of_two_digits(text):
    assert parse_capability(text) == "12.0"


@pytest.mark.parametrize(
    "text",
    ["", "8", "h200", "l4", "4090", "8.9.0", "8,9", "cc", "cc-", "-8.9-", "rtx-4090", FOREIGN_EIGHT * 2],
)
def test_what_is_not_a_capability(text):
    assert parse_capability(text) is None


@given(st.integers(1, 99), st.integers(0, 9))
def test_a_capability_comes_back(major, minor):
    number = f"{major}.{minor}"
    assert parse_capability(number) == parse_capability(capability_target(number)) == number
    assert parse_capability(f"sm_{major}{minor}") == number
    assert Target.model_validate(ADA | {"gpu": capability_target(number), "compute_capability": number})


@given(st.text(max_size=12))
def test_a_parsed_capability_is_always_one_of_a_target(text):
    number = parse_capability(text)
    if number is not None:
        assert Target.model_validate(ADA | {"compute_capability": number})


# --- GPU names ---


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H200", "h200"),
        ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("Quadro RTX 6000", "rtx-6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada-generation"),
        ("NVIDIA L40S", "l40s"),
        ("h200+MIG-1g.18gb", "h200+mig-1g.18gb"),
        ("H100+mig-1g.10gb+me", "h100+mig-1g.10gb+me"),
        ("h200", "h200"),
    ],
)
def test_slugs(name, slug):
    assert gpu_slug(name) == slug


@pytest.mark.parametrize(
    "name", ["", "  ", "NVIDIA", "NVIDIA GeForce", "!!!", "+mig-1g.18gb", "GPU\N{SNOWMAN}"[3:]]
)
def test_names_of_nothing(name):
    with pytest.raises(UnknownGpuError):
        gpu_slug(name)


@given(st.text(max_size=40) | st.from_regex(r"[A-Za-z0-9 .+()\-/]{1,40}", fullmatch=True))
def test_a_slug_is_fit_for_a_target_and_its_own_slug(name):
    try:
        slug = gpu_slug(name)
    except UnknownGpuError:
        return
    assert TypeAdapter(Slug).validate_python(slug) == slug
    assert gpu_slug(slug) == slug
