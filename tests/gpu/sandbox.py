"""What a GPU must show of the sandbox: real TensorRT works in it, and what takes it over gets nowhere.

    python -m tests.gpu.sandbox OUT [MODE…]

OUT: folder for the figures. Needs one NVIDIA GPU and TensorRT, and the checkout as working folder.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.security.hostile_child import (
    DEEDS,
    FORBIDDEN,
    ITS_OWN,
    REFUSED,
    UNLIMITED_ON_A_GPU,
)
from trtfarm import landlock, sandbox, seccomp
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.trtexec import parse_build_options
from trtfarm_worker import nvml
from trtfarm_worker.child.gpu_lock import gpu_lock
from trtfarm_worker.child.process import GpuHold, TensorRTChild
from trtfarm_worker.child.protocol import BenchmarkRequest, BuildRequest, Built, Measured
from trtfarm_worker.settings import WorkerSettings

OPTIONS = ["--tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN"]


def save_model(path: Path) -> None:
    """Twelve convolutions, each with a Relu."""
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "input"
    for layer in range(12):
        weight = random.standard_normal((64, 64, 3, 3), dtype=np.float32) * 0.05
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        name = f"r{layer}"
    shape = [8, 64, 56, 56]
    ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in ("input", name)]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


class Slot:
    def __init__(self, folder: Path, mode: str, lock: int) -> None:
        self.folder, self.number = folder, 0
        self.device = nvml.devices()[0]
        settings = {
            "runtime": "tensorrt",
            "scratch": folder / "scratch",
            "sandbox": mode,
            "child_module": "tests.security.hostile_child",
            "child_file_bytes": 1 << 30,
        }
        hold = GpuHold(self.device.uuid, lock)
        self.child = TensorRTChild(WorkerSettings.model_validate(settings), gpu=hold)
        began = time.monotonic()
        self.ready = self.child.start()
        self.start_seconds = time.monotonic() - began
        self.stages: list[str] = []

    def attempt(self) -> Path:
        self.number += 1
        folder = self.folder / f"job{self.number}.1"
        folder.mkdir()
        return folder

    def run(self, request: Any, submitter: str) -> tuple[Any, float]:
        began = time.monotonic()
        answer = self.child.run(request, lambda: None, lambda told: None, submitter)
        seconds = time.monotonic() - began
        if not isinstance(answer, Built | Measured):
            raise SystemExit(f"{answer}\n{Path(request.log_path).read_text()[-3000:]}")
        return answer, seconds

    def build(self, model: Path, submitter: str = "a") -> tuple[Path, Any, float]:
        folder = self.attempt()
        target = Target(
            gpu=self.device.gpu,
            compute_capability=self.device.compute_capability,
            runtime=self.ready.runtime,
        )
        config = parse_build_options(OPTIONS).config
        request = BuildRequest(
            spec=BuildSpec(model=Digest.of_bytes(model.read_bytes()), target=target, config=config),
            model_path=str(model),
            plan_path=str(folder / "plan"),
            io_path=str(folder / "io.json"),
            log_path=str(folder / "build.log"),
            timing_cache_out=str(folder / "timing"),
        )
        answer, seconds = self.run(request, submitter)
        return folder / "plan", answer, seconds

    def benchmark(self, plan: Path, submitter: str = "a") -> tuple[Any, float]:
        folder = self.attempt()
        request = BenchmarkRequest(
            plan_path=str(plan),
            device=self.device,
            options=BenchmarkOptions(duration_seconds=1, layers=True, cuda_graph=True),
            folder=str(folder),
            log_path=str(folder / "build.log"),
        )
        answer, seconds = self.run(request, submitter)
        assert (folder / "times.json").stat().st_size
        assert (folder / "layers.json").stat().st_size
        return answer, seconds


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}

    def note(name: str, value: Any) -> None:
        figures[name] = value
        print(name, json.dumps(value, default=str), flush=True)
        (out / "sandbox.json").write_text(json.dumps(figures, indent=1, default=str))

    note("kernel", [platform.release(), landlock.abi(), sandbox.offered()])
    folder = Path(tempfile.mkdtemp(prefix="sandbox."))
    own = folder / "model"
    own.mkdir()
    save_model(own / "model.onnx")
    with gpu_lock(nvml.devices()[0].uuid) as lock:
        for mode in sys.argv[2:] or ("auto", "off"):
            place = folder / mode
            place.mkdir()
            slot = Slot(place, mode, lock)
            note(f"{mode}: start", [slot.start_seconds, slot.ready.sandbox])
            escape(slot, place, mode, note)
            plan, built, seconds = slot.build(own / "model.onnx")
            note(f"{mode}: build", [built.build_seconds, seconds, plan.stat().st_size, built.timing_cache])
            _, built, seconds = slot.build(own / "model.onnx")
            note(f"{mode}: build again", [built.build_seconds, seconds])
            measured, seconds = slot.benchmark(plan)
            note(f"{mode}: benchmark", [measured.measurement.throughput_qps, seconds])
            note(f"{mode}: device memory", measured.measurement.device_memory_bytes)
            slot.child.warm()
            time.sleep(30)  # it loads meanwhile
            _, built, seconds = slot.build(own / "model.onnx", "b")
            note(f"{mode}: build of the next submitter, child started ahead", [built.build_seconds, seconds])
            _, built, seconds = slot.build(own / "model.onnx", "c")
            note(f"{mode}: build of the next submitter, at once", [built.build_seconds, seconds])
            slot.child.kill()
    shutil.rmtree(folder)


def escape(slot: Slot, place: Path, mode: str, note: Any) -> None:
    """With CUDA in the process, and its threads."""
    other = slot.folder / "other"
    other.write_text("a model")
    forbidden = [name for name in FORBIDDEN if name not in UNLIMITED_ON_A_GPU]
    deeds = [*ITS_OWN, *forbidden] if mode == "auto" else ["fork", "read another model", "send by UDP"]
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        (place / "lock").open("w") as lock,
    ):
        unix.bind(str(place / "socket"))
        unix.listen()
        aims = {
            "worker": os.getpid(),
            "other_model": str(other),
            "scratch": str(slot.folder),
            "home": str(Path.home()),
            "shared_memory": f"/dev/shm/trtfarm-{os.getpid()}",
            "tcp": tcp.getsockname(),
            "udp": tcp.getsockname(),
            "unix": str(place / "socket"),
            "abstract": "nobody",
            "lock": lock.fileno(),
            "deeds": deeds,
            "left": sorted(seccomp.CUDA),
        }
        model = place / "hostile"
        model.mkdir()
        (model / "model.onnx").write_text(json.dumps(aims))
        plan, _, _ = slot.build(model / "model.onnx", "c")
    told = json.loads(plan.read_text())["told"]
    Path(aims["shared_memory"]).unlink(missing_ok=True)
    assert set(told) <= set(DEEDS)
    reached = {n: told[n] for n in FORBIDDEN if n in told and told[n] not in REFUSED | {"EPERM"}}
    note(f"{mode}: reached", reached)
    note(f"{mode}: of its own", {name: told.get(name) for name in sorted(ITS_OWN)})


if __name__ == "__main__":
    main()
