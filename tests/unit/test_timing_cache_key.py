"""Which builds share a timing cache."""

from __future__ import annotations

import pytest

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.device import Device
from trtfarm.contract.timing_cache import timing_cache_key

H200 = Device(
    name="NVIDIA H200",
    gpu="h200",
    uuid="GPU-1",
    compute_capability="9.0",
    multiprocessors=132,
    memory_bytes=150754820096,
    driver="580.159.04",
    cuda="13.0",
)
RUNTIME = "tensorrt-10.16.1.11"
KEY = timing_cache_key(H200, RUNTIME, BuilderConfig())


def test_two_gpus_of_one_product_share() -> None:
    other = H200.model_copy(update={"uuid": "GPU-2", "driver": "590.1"})
    assert timing_cache_key(other, RUNTIME, BuilderConfig()) == KEY


@pytest.mark.parametrize(
    "config",
    [
        BuilderConfig(fp16=True),
        BuilderConfig(builder_optimization_level=5),
        BuilderConfig(memory_pool_limits={"workspace": 1 << 30}),
    ],
)
def test_what_is_keyed_inside_the_cache_does_not_split_it(config: BuilderConfig) -> None:
    assert timing_cache_key(H200, RUNTIME, config) == KEY


@pytest.mark.parametrize(
    "change", [{"gpu": "h200+mig-1g.18gb"}, {"multiprocessors": 114}, {"cuda": "12.9"}, {"gpu": "h100-nvl"}]
)
def test_another_gpu_slice_or_cuda_has_its_own(change: dict[str, object]) -> None:
    assert timing_cache_key(H200.model_copy(update=change), RUNTIME, BuilderConfig()) != KEY


def test_another_build_of_tensorrt_has_its_own() -> None:
    assert timing_cache_key(H200, "tensorrt-10.16.1.12", BuilderConfig()) != KEY


@pytest.mark.parametrize("config", [BuilderConfig(tf32=False), BuilderConfig(refit=True)])
def test_flags_that_change_the_implementations_split_it(config: BuilderConfig) -> None:
    assert timing_cache_key(H200, RUNTIME, config) != KEY
