"""Who fits whom: NVIDIA's rules of plan portability, a line a case."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import GpuFit, Judgement, PlanFacts, RuntimeFit, judge
from trtfarm.contract.machine import Machine, Wanted
from trtfarm.contract.target import Target

CAPABILITIES = {
    "h200": "9.0", "h100-pcie": "9.0", "l4": "8.9", "rtx-4090": "8.9", "a100-sxm4-80gb": "8.0", "t4": "7.5",
    "rtx-5090": "12.0", "v100-sxm2-16gb": "7.0",
}  # fmt: skip
T1016, RTX = "tensorrt-10.16.1.11", "tensorrt-rtx-1.7.1.116"
AMPERE = {"hardware_compatibility_level": "ampere_plus"}
SAME = {"hardware_compatibility_level": "same_compute_capability"}
VC = {"version_compatible": True}
LEAN_LESS = {"version_compatible": True, "exclude_lean_runtime": True}


def capability(gpu: str) -> str:
    return gpu.removeprefix("cc-") if gpu.startswith("cc-") else CAPABILITIES[gpu.partition("+")[0]]


def plan(gpu: str = "h200", runtime: str = T1016, **config: Any) -> PlanFacts:
    platform = config.pop("platform", "linux-x86_64")
    target = Target(gpu=gpu, compute_capability=capability(gpu), runtime=runtime, platform=platform)
    name = Digest.of_bytes(f"{target}{config}".encode())
    return PlanFacts(name, "job", target, config, [], datetime(2026, 1, 1, tzinfo=UTC))


def machine(gpu: str = "h200", runtime: str = T1016, platform: str = "linux-x86_64") -> Machine:
    known = None if gpu.startswith("cc-") else gpu
    return Machine(gpu=known, compute_capability=capability(gpu), runtime=runtime, platform=platform)


E, C, H = GpuFit
FITS: list[tuple[str, dict[str, Any], str, GpuFit]] = [
    # built on, with, for a machine with, how
    ("h200", {}, "h200", E),
    ("h200", AMPERE, "h200", E),
    ("h200+mig-1g.18gb", {}, "h200+mig-1g.18gb", E),
    ("h200", AMPERE, "l4", H),
    ("a100-sxm4-80gb", AMPERE, "rtx-5090", H),
    ("rtx-5090", AMPERE, "a100-sxm4-80gb", H),
    ("a100-sxm4-80gb", AMPERE, "cc-8.6", H),
    ("h200", SAME, "h100-pcie", H),
    ("h100-pcie", SAME, "h200", H),
    ("h200", SAME, "cc-9.0", H),
]
REFUSED_GPUS: list[tuple[str, dict[str, Any], str, str, str]] = [
    # built on, with, for a machine with, what differs, a part of the message
    ("h200", {}, "h100-pcie", "gpu", "without --hardwareCompatibilityLevel"),
    ("l4", {}, "rtx-4090", "gpu", "without --hardwareCompatibilityLevel"),
    ("l4", VC, "rtx-4090", "gpu", "without --hardwareCompatibilityLevel"),
    ("h200", {}, "cc-9.0", "gpu", "did not say which GPU"),
    ("h200", {}, "l4", "compute_capability", "9.0, you have 8.9"),
    ("h200", SAME, "l4", "compute_capability", "9.0, you have 8.9"),
    ("h200", AMPERE, "t4", "compute_capability", "8.0 and newer, you have 7.5"),
    ("h200", AMPERE, "v100-sxm2-16gb", "compute_capability", "8.0 and newer"),
    ("h200", {}, "h200+mig-1g.18gb", "gpu", "MIG slice"),
    ("h200+mig-1g.18gb", {}, "h200", "gpu", "MIG slice"),
    ("h200+mig-1g.18gb", {}, "h200+mig-2g.35gb", "gpu", "MIG slice"),
    ("h200", SAME, "h200+mig-1g.18gb", "gpu", "MIG slice"),
    ("h200+mig-1g.18gb", SAME, "h200", "gpu", "MIG slice"),
    ("h200", AMPERE, "h200+mig-1g.18gb", "gpu", "MIG slice"),
    ("h200+mig-1g.18gb", AMPERE, "l4", "gpu", "MIG slice"),
]
VERSIONS: list[tuple[str, dict[str, Any], str, str | None]] = [
    # built with, how, for a machine with, None if it fits or a part of the message
    ("10.16.1.11", {}, "10.16.1.11", None),
    ("10.16.1.11", VC, "10.16.1.11", None),
    ("10.16.1.11", LEAN_LESS, "10.16.1.11", None),
    ("10.16.0", {}, "10.16.1", "built with TensorRT 10.16.0, you have 10.16.1, and without --versionC"),
    ("10.16.1.11", {}, "10.16.1.12", "without --versionCompatible"),
    ("10.9.0.34", {}, "10.16.1.11", "without --versionCompatible"),
    ("10.9.0.34", VC, "10.16.1.11", None),
    ("10.16.0", VC, "10.16.1", None),
    ("10.16.1.11", VC, "10.9.0.34", "not with older ones"),
    ("10.16.1.11", VC, "10.16.1.10", "not with older ones"),
    ("8.6.0", VC, "8.6.1", None),
    ("8.5.3", VC, "8.6.1", "not with older ones"),
    ("8.6.1", VC, "10.16.1.11", None),
    ("10.16.1.11", VC, "11.4.0.106", None),
    ("8.6.1", VC, "11.4.0.106", "8 to 10 and 10 to 11"),
    ("8.6.1", VC, "9.3.0", "8 to 10 and 10 to 11"),
    ("11.4.0.106", VC, "10.16.1.11", "not with older ones"),
    ("10.9.0.34", LEAN_LESS, "10.16.1.11", "lean runtime was left out"),
    ("10.16.1.11", {}, "10.16.1", "state the whole version"),
    ("10.16.1.11", VC, "10.16.1", "state the whole version"),
    ("10.16.1", {}, "10.16.1.11", "state the whole version"),
]


def fit(found: Judgement) -> tuple[bool, GpuFit, RuntimeFit]:
    return found.fits, found.gpu, found.runtime


@pytest.mark.parametrize(("built", "config", "have", "how"), FITS)
def test_gpus_that_fit(built: str, config: dict[str, Any], have: str, how: GpuFit) -> None:
    found = judge(machine(have), plan(built, **config), Wanted())
    assert fit(found) == (True, how, RuntimeFit.EXACT)
    assert found.reasons[0].startswith("built ")
    assert found.distance == 0


@pytest.mark.parametrize(("built", "config", "have", "field", "message"), REFUSED_GPUS)
def test_gpus_that_do_not(built: str, config: dict[str, Any], have: str, field: str, message: str) -> None:
    (difference,) = judge(machine(have), plan(built, **config), Wanted()).differences
    assert difference.field == field
    assert message in difference.message
    assert difference.distance > 0


@pytest.mark.parametrize(("built", "config", "have", "message"), VERSIONS)
def test_versions(built: str, config: dict[str, Any], have: str, message: str | None) -> None:
    found = judge(machine(runtime=f"tensorrt-{have}"), plan(runtime=f"tensorrt-{built}", **config), Wanted())
    if message is None:
        exact = built == have
        assert fit(found) == (True, E, RuntimeFit.EXACT if exact else RuntimeFit.VERSION_COMPATIBLE)
        assert any("engine_host_code_allowed" in need for need in found.needs) is not exact
    else:
        assert [each.field for each in found.differences] == ["runtime"]
        assert message in found.differences[0].message


@pytest.mark.parametrize(
    ("built", "have"),
    list(product(CAPABILITIES, ["cc-7.5", "cc-8.6", "cc-8.9", "cc-9.0", "cc-12.0"])),
)
def test_plans_of_tensorrt_rtx_fit_a_capability(built: str, have: str) -> None:
    """Whatever the product is, and a slice as well as a whole GPU."""
    own = CAPABILITIES[built]
    for gpu in (built, f"{built}+mig-1g.18gb", f"cc-{own}"):
        found = judge(machine(gpu, RTX), plan(have, RTX), Wanted())
        assert found.fits is (have == f"cc-{own}"), found
        assert found.gpu is C or not found.fits


@pytest.mark.parametrize("have", ["1.7.1.115", "1.7.2.0", "1.8.0.1", "1.6.1.116", "2.0.0.1"])
@pytest.mark.parametrize("config", [{}, LEAN_LESS])
def test_plans_of_tensorrt_rtx_fit_one_release(have: str, config: dict[str, Any]) -> None:
    found = judge(machine("l4", f"tensorrt-rtx-{have}"), plan("cc-8.9", RTX, **config), Wanted())
    assert "no other" in found.differences[0].message


def test_flavours_never_mix() -> None:
    for have, built in ((RTX, T1016), (T1016, RTX)):
        found = judge(machine("l4", have), plan("cc-8.9" if built == RTX else "l4", built, **VC), Wanted())
        assert [each.field for each in found.differences] == ["runtime"]


@pytest.mark.parametrize("config", [{}, AMPERE, VC])
@pytest.mark.parametrize("have", ["linux-aarch64", "windows-x86_64"])
def test_platforms_never_mix(have: str, config: dict[str, Any]) -> None:
    found = judge(machine(platform=have), plan(**config), Wanted())
    assert [each.field for each in found.differences] == ["platform"]
    assert not judge(machine("l4", RTX, have), plan("cc-8.9", RTX), Wanted()).fits


def test_what_was_asked_of_the_builder() -> None:
    fp16 = plan(fp16=True)
    assert judge(machine(), fp16, Wanted({"fp16": True})).fits
    assert judge(machine(), fp16, Wanted({"refit": None})).fits
    for wanted in ({"fp16": None}, {"refit": True}, {"fp16": True, "bf16": True}):
        (difference,) = judge(machine(), fp16, Wanted(wanted)).differences
        assert difference.field.startswith("config.")
    profile = {"x": {"min": [1], "opt": [2], "max": [4]}}
    assert not judge(machine(), fp16, Wanted(profiles=(profile,))).fits
    assert judge(machine(), fp16, Wanted(profiles=())).fits


def test_stripped_weights_are_given_to_those_who_ask() -> None:
    assert not judge(machine(), plan(strip_plan=True), Wanted()).fits
    assert judge(machine(), plan(strip_plan=True), Wanted({"strip_plan": True})).fits


def test_a_lost_plan_does_not_fit() -> None:
    (difference,) = judge(machine(), plan(), Wanted(), lost=True).differences
    assert difference.field == "bytes"


def test_every_difference_is_told_and_the_distance_adds_up() -> None:
    far = judge(machine("l4", RTX, "linux-aarch64"), plan("t4", fp16=True), Wanted({"fp16": None}), lost=True)
    assert {each.field for each in far.differences} == {
        "platform", "compute_capability", "runtime", "config.fp16", "bytes",
    }  # fmt: skip
    assert far.distance == sum(each.distance for each in far.differences)


def test_nearer_versions_are_nearer() -> None:
    versions = ["10.16.1.12", "10.16.0.11", "10.15.1.11", "8.6.1"]
    found = [judge(machine(), plan(runtime=f"tensorrt-{each}"), Wanted()).distance for each in versions]
    assert found == sorted(set(found))
