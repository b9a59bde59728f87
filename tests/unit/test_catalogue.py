from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

from trtfarm import catalogue as module
from trtfarm.catalogue import Capability, Catalogue, GpuEntry
from trtfarm.contract.target import Target, gpu_slug
from trtfarm.errors import ConfigurationError, UnknownGpuError

CATALOGUE = Catalogue.load()
SOURCE = Path(__file__).parents[2] / "configs" / "targets.toml"


def test_every_slug_is_that_of_its_name_and_unique():
    assert len(CATALOGUE.entries) > 150
    assert [e.slug for e in CATALOGUE.entries] == [gpu_slug(e.name) for e in CATALOGUE.entries]
    assert not [s for s, n in Counter(e.slug for e in CATALOGUE.entries).items() if n > 1]


def test_no_alias_is_ambiguous_or_hides_a_slug():
    keys = Counter(module._key(a) for e in CATALOGUE.entries for a in {e.slug, *e.aliases})
    assert not [k for k, n in keys.items() if n > 1]


@pytest.mark.parametrize("entry", CATALOGUE.entries, ids=lambda e: e.slug)
def test_every_entry_is_found_by_slug_name_and_alias(entry):
    for text in (entry.slug, entry.name, entry.name.upper(), *entry.aliases):
        assert CATALOGUE.resolve(text) == entry
    Target(gpu=entry.slug, compute_capability=entry.compute_capability, runtime="tensorrt-11.4.0.106")


ARCHITECTURES = {
    "volta": {"7.0"},
    "turing": {"7.5"},
    "ampere": {"8.0", "8.6", "8.7"},
    "ada": {"8.9"},
    "hopper": {"9.0"},
    "blackwell": {"10.0", "10.3", "11.0", "12.0", "12.1"},
}


def test_capabilities_belong_to_their_architecture():
    for entry in CATALOGUE.entries:
        assert entry.compute_capability in ARCHITECTURES[entry.architecture], entry.slug
    assert CATALOGUE.capabilities == tuple(
        sorted({c for some in ARCHITECTURES.values() for c in some}, key=float)
    )


@pytest.mark.parametrize(
    ("text", "slug", "capability"),
    [
        ("rtx-4090", "rtx-4090", "8.9"),
        ("4090", "rtx-4090", "8.9"),
        ("RTX 4090", "rtx-4090", "8.9"),
        ("rtx4090", "rtx-4090", "8.9"),
        (" NVIDIA GeForce RTX 4090 ", "rtx-4090", "8.9"),
        ("4090 laptop", "rtx-4090-laptop-gpu", "8.9"),
        ("l4", "l4", "8.9"),
        ("NVIDIA L4", "l4", "8.9"),
        ("T4", "t4", "7.5"),
        ("h200", "h200", "9.0"),
        ("a100-sxm4-80gb", "a100-sxm4-80gb", "8.0"),
        ("a100-sxm4-40gb", "a100-sxm4-40gb", "8.0"),
        ("a100-pcie-40gb", "a100-pcie-40gb", "8.0"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie", "8.0"),
        ("GH200", "gh200-480gb", "9.0"),
        ("b300", "b300-sxm6-ac", "10.3"),
        ("5090", "rtx-5090", "12.0"),
        ("A6000", "rtx-a6000", "8.6"),
        ("RTX 6000 Ada", "rtx-6000-ada-generation", "8.9"),
    ],
)
def test_products_as_people_write_them(text, slug, capability):
    found = CATALOGUE.resolve(text)
    assert isinstance(found, GpuEntry)
    assert (found.slug, found.compute_capability) == (slug, capability)


@pytest.mark.parametrize("text", ["cc-8.9", "CC-8.9", "sm_89", "sm89", "8.9", "89"])
def test_capabilities(text):
    found = CATALOGUE.resolve(text)
    assert found == Capability(compute_capability="8.9")
    assert found.slug == "cc-8.9"


def test_a_capability_newer_than_the_catalogue_is_a_capability():
    assert CATALOGUE.resolve("cc-13.0").slug == "cc-13.0"
    assert CATALOGUE.resolve("sm_120").slug == "cc-12.0"


@pytest.mark.parametrize("text", ["cc-6.1", "sm_35", "cc-45.0"])
def test_impossible_capabilities_are_refused(text):
    with pytest.raises(UnknownGpuError, match=r"Known ones: 7\.0, 7\.5, 8\.0"):
        CATALOGUE.resolve(text)


@pytest.mark.parametrize("text", ["h200+mig-1g.18gb", "H200+MIG-1g.18gb", "NVIDIA H200 MIG 1g.18gb"])
def test_mig_slices_of_known_gpus(text):
    found = CATALOGUE.resolve(text)
    assert isinstance(found, GpuEntry)
    assert (found.slug, found.memory_gib, found.compute_capability) == ("h200+mig-1g.18gb", 18, "9.0")
    assert Target(gpu=found.slug, compute_capability="9.0", runtime="tensorrt-8.6.0").queue == (
        "tensorrt-8.6.0.h200+mig-1g.18gb"
    )


def test_mig_profiles_with_attributes():
    assert CATALOGUE.resolve("a100-sxm4-40gb+mig-1g.5gb+me").slug == "a100-sxm4-40gb+mig-1g.5gb+me"


@pytest.mark.parametrize("text", ["h300+mig-1g.18gb", "h200+mig-huge", "h200+1g.18gb"])
def test_slices_that_are_not(text):
    with pytest.raises(UnknownGpuError):
        CATALOGUE.resolve(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("rtx-4900", "rtx-4090"),
        ("rtx 409O", "rtx-4090"),
        ("h100", "Say which: h100-80gb-hbm3, h100-pcie, h100-nvl; or any of a capability: cc-9.0"),
        ("a100", "a100-sxm4-80gb"),
        ("zzzz", "Write a compute capability"),
        ("", "Write a compute capability"),
        ("NVIDIA", "Write a compute capability"),
        ("Ω", "Write a compute capability"),
        ("45", "cc-8.9"),
    ],
)
def test_unknown_names_get_the_nearest(text, hint):
    with pytest.raises(UnknownGpuError) as caught:
        CATALOGUE.resolve(text)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("A100 80GB", ["a100-sxm4-80gb", "a100-80gb-pcie"]),
        ("NVIDIA A100 40GB", ["a100-sxm4-40gb", "a100-pcie-40gb"]),
        ("H100 80GB", ["h100-80gb-hbm3", "h100-pcie"]),
        ("V100 SXM2", ["v100-sxm2-16gb", "v100-sxm2-32gb"]),
    ],
)
def test_a_short_name_lists_what_it_could_mean(text, family):
    assert [entry.slug for entry in CATALOGUE.family(text)] == family
    with pytest.raises(UnknownGpuError, match="could be 2 GPUs") as caught:
        CATALOGUE.resolve(text)
    assert f"Say which: {', '.join(family)}; or any of a capability: cc-" in caught.value.hint


@pytest.mark.parametrize(("text", "slug"), [("L4 24GB", "l4"), ("Tesla T4 16GB", "t4")])
def test_the_memory_may_be_said(text, slug):
    assert CATALOGUE.resolve(text).slug == slug


@pytest.mark.parametrize("text", ["hbm3", "80gb", "nvl", "l4 48gb"])
def test_a_part_of_a_name_is_nobody(text):
    assert CATALOGUE.family(text) == ()


def test_chips_with_arm_cpus_say_so():
    for text in ("GB10", "Jetson Orin", "Jetson Thor", "GH200", "GB200"):
        found = CATALOGUE.resolve(text)
        assert isinstance(found, GpuEntry)
        assert "linux-x86_64" not in found.platforms


def test_the_default_is_the_source_tree_file_read_once():
    assert Catalogue.load(SOURCE) == CATALOGUE
    assert Catalogue.load().entries[0] is Catalogue.load().entries[0]


def test_the_file_reads_as_documented():
    keys = {key for row in tomllib.loads(SOURCE.read_text())["gpu"] for key in row}
    assert keys <= set(GpuEntry.model_fields)


GOOD = '[[gpu]]\nslug = "l4"\nname = "NVIDIA L4"\ncompute_capability = "8.9"\narchitecture = "ada"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + 'colour = "green"\n', "gpu.0.colour"),
        ("speed = 3\n" + GOOD, "speed"),
        (GOOD.replace('"8.9"', "8.9"), "gpu.0.compute_capability"),
        (GOOD.replace("slug", "slog"), "gpu.0.slug"),
        ("gpu = [", "cannot be read"),
    ],
)
def test_a_bad_file_names_the_file_and_the_key(tmp_path, text, named):
    path = tmp_path / "targets.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Catalogue.load(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


def test_a_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Catalogue.load(tmp_path / "none.toml")


def test_an_own_catalogue_replaces_the_packaged_one(tmp_path):
    path = tmp_path / "targets.toml"
    path.write_text(GOOD)
    own = Catalogue.load(path)
    assert [entry.slug for entry in own.entries] == ["l4"]
    with pytest.raises(UnknownGpuError):
        own.resolve("h200")
