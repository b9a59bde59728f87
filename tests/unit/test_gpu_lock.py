"""One owner per GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from trtfarm.contract.device import Device
from trtfarm.errors import ConfigurationError
from trtfarm_worker.child.gpu_lock import choose, gpu_lock

_SLEEPER = "import time; time.sleep(60)"


@pytest.fixture
def gpu() -> str:
    return f"GPU-{uuid.uuid4()}"


def test_a_second_worker_is_refused(gpu: str) -> None:
    with gpu_lock(gpu), pytest.raises(ConfigurationError, match="another trtfarm worker"), gpu_lock(gpu):
        pass


def test_the_lock_ends_with_its_owner(gpu: str) -> None:
    with gpu_lock(gpu):
        pass
    with gpu_lock(gpu):
        pass


def test_a_child_that_outlives_its_worker_keeps_the_gpu(gpu: str) -> None:
    with gpu_lock(gpu) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", _SLEEPER], pass_fds=(descriptor,))
    try:
        with pytest.raises(ConfigurationError), gpu_lock(gpu):
            pass
    finally:
        child.kill()
        child.wait()
    with gpu_lock(gpu):
        pass


def test_a_worker_that_is_killed_frees_the_gpu(gpu: str) -> None:
    program = (
        "from trtfarm_worker.child.gpu_lock import gpu_lock\n"
        f"with gpu_lock({gpu!r}): print('mine', flush=True); input()"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    assert worker.stdout is not None
    assert worker.stdin is not None
    assert worker.stdout.readline() == b"mine\n"
    with pytest.raises(ConfigurationError), gpu_lock(gpu):
        pass
    worker.kill()
    worker.wait()
    worker.stdin.close()
    worker.stdout.close()
    with gpu_lock(gpu):
        pass


def device(number: int) -> Device:
    return Device(
        name="NVIDIA L4",
        gpu="l4",
        uuid=f"GPU-{number}",
        compute_capability="8.9",
        multiprocessors=58,
        memory_bytes=24 << 30,
        driver="580.1",
        cuda="13.0",
    )


def test_the_only_gpu_needs_no_name() -> None:
    assert choose([device(0)], None) == device(0)


@pytest.mark.parametrize("wanted", ["1", "GPU-1"])
def test_one_of_several_is_chosen_by_index_or_uuid(wanted: str) -> None:
    assert choose([device(0), device(1)], wanted) == device(1)


@pytest.mark.parametrize(("here", "wanted"), [([], None), ([device(0), device(1)], None), ([device(0)], "7")])
def test_no_guessing(here: list[Device], wanted: str | None) -> None:
    with pytest.raises(ConfigurationError, match="Which GPU"):
        choose(here, wanted)
