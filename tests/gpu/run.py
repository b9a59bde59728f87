"""What a GPU must show: builds, shared timing caches, benchmarks, faults. Prints and writes figures.

    python run.py MODELS OUT STAGE…

MODELS: folder made by export_models.py. OUT: folder for the figures.
Stages: smoke, cache, peer_build, fidelity, matrix, no_tf32, benchmark, inputs, typed, two, faults, refused.

Needs one NVIDIA GPU and TensorRT; uses an embedded farm in OUT's sibling ``home``. peer_build and fidelity
compare with the trtexec that the variable TRTEXEC names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PORT = 8421
OPTIONS = ["--tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN"]
SHAPES = [
    "--minShapes=input:1x3x224x224",
    "--optShapes=input:8x3x224x224",
    "--maxShapes=input:16x3x224x224",
]


class Run:
    def __init__(self, models: Path, out: Path) -> None:
        self.models, self.out = models, out
        self.home = out.parent / "home"
        self.figures: dict[str, Any] = {}
        out.mkdir(parents=True, exist_ok=True)

    def note(self, name: str, value: Any) -> None:
        self.figures[name] = value
        print(name, json.dumps(value), flush=True)
        (self.out / "figures.json").write_text(json.dumps(self.figures, indent=1))

    @contextlib.contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """An embedded farm in a process of its own, with a fresh TensorRT child."""
        log = (self.out / "serve.log").open("ab")
        environment = os.environ | {"TRTFARM_HOME": str(self.home)}
        command = [sys.executable, "-m", "trtfarm", "serve", "--embedded", "--port", str(PORT)]
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while time.monotonic() - started < 120:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=1).close()
                    break
                if process.poll() is not None:
                    raise SystemExit(f"serve ended: {(self.out / 'serve.log').read_text()[-3000:]}")
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.close()

    def cli(self, *arguments: str) -> dict[str, Any]:
        environment = os.environ | {"TRTFARM_URL": f"http://127.0.0.1:{PORT}"}
        if (self.home / "token").exists():
            environment["TRTFARM_API_KEY"] = (self.home / "token").read_text().strip()
        done = subprocess.run(
            [sys.executable, "-m", "trtfarm", *arguments, "--json"],
            env=environment,
            capture_output=True,
            text=True,
        )
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise SystemExit(f"{arguments}: {done.stdout} {done.stderr}") from None

    def build(self, model: str, *options: str, shapes: bool = True) -> dict[str, Any]:
        """One build: how it ended, and the seconds from claim to finish."""
        extra = [*(SHAPES if shapes else []), *OPTIONS, *options]
        (job,) = self.cli("build", str(self.models / f"{model}.onnx"), "--gpu", self.gpu, *extra)["jobs"]
        view = self.cli("job", "show", job["job_id"])
        job["seconds"] = seconds(view)
        job["timing_cache"] = (view.get("plan") or {}).get("timing_cache")
        job["attempts"] = [(each["number"], each["outcome"]) for each in view["attempts"]]
        return job

    @property
    def gpu(self) -> str:
        return self.cli("fleet")["workers"][0]["gpus"][0]

    def forget(self, job: dict[str, Any]) -> None:
        """Removes a plan's bytes, so that the same build is done again."""
        name = job["plan"]["digest"].removeprefix("sha256:")
        (self.home / "artifacts" / "sha256" / name[:2] / name[2:]).unlink()

    def child(self, worker: subprocess.Popen[bytes]) -> int:
        children = subprocess.run(
            ["pgrep", "-f", "trtfarm_worker.tensorrt.child"], capture_output=True, text=True
        )
        return next(int(pid) for pid in children.stdout.split() if parent(int(pid)) == worker.pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def seconds(job: dict[str, Any]) -> float | None:
    if not job["finished_at"] or not job["started_at"]:
        return None
    from datetime import datetime

    begin, end = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return (end - begin).total_seconds()


def brief(job: dict[str, Any]) -> dict[str, Any]:
    kept = ("state", "disposition", "seconds", "build_seconds", "timing_cache", "attempts", "error")
    return {name: job[name] for name in kept} | {"size": (job["plan"] or {}).get("size_bytes")}


def smoke(run: Run) -> None:
    run.note("doctor", run.cli("doctor"))
    with run.worker():
        run.note("fleet", run.cli("fleet"))
        job = run.build("resnet18")
        run.note("resnet18 fp32 cold", brief(job))
        run.note("resnet18 fp16", brief(run.build("resnet18", "--fp16")))
        measured = run.cli("benchmark", job["plan"]["digest"], "--shapes=input:1x3x224x224", "--duration=1")
        run.note("resnet18 fp32 benchmark", measured.get("benchmark") or measured)


def cache(run: Run) -> None:
    with run.worker():
        first = run.build("resnet50", "--fp16")
        run.note("resnet50 fp16 cold or family", brief(first))
        run.forget(first)
        run.note("resnet50 fp16 again, warm child", brief(run.build("resnet50", "--fp16")))
    run.forget(first | {"plan": run_plan(run)})
    with run.worker():
        run.note("resnet50 fp16 again, another worker process", brief(run.build("resnet50", "--fp16")))
        run.note("caches", run.cli("cache", "list"))


def run_plan(run: Run) -> dict[str, Any]:
    with run.worker():
        return run.cli("plan", "list", "--limit", "1")["plans"][0]


def matrix(run: Run) -> None:
    with run.worker():
        for model in ("resnet18", "resnet50", "mobilenet_v2", "vit_b_16"):
            for precision in ([], ["--fp16"]):
                name = f"{model} {'fp16' if precision else 'fp32'}"
                job = run.build(model, *precision)
                run.note(name, brief(job))
                if job["plan"] is None:
                    continue
                compare(run, model, job, name)
                for batch in (1, 8):
                    measured = run.cli(
                        "benchmark",
                        job["plan"]["digest"],
                        f"--shapes=input:{batch}x3x224x224",
                        "--duration=1",
                    )
                    run.note(f"{name} batch {batch}", figures(measured))


def typed(run: Run) -> None:
    """Setters that only networks without strong typing have."""
    with run.worker():
        for options in (
            ["--inputIOFormats=fp16:chw", "--outputIOFormats=fp16:chw", "--fp16"],
            ["--fp16", "--precisionConstraints=obey", "--layerPrecisions=*:fp16"],
        ):
            run.note(" ".join(options), brief(run.build("resnet18", *options)))


def two(run: Run) -> None:
    """Two workers on two GPUs build at the same time with one timing cache."""
    with run.worker():
        workers = run.cli("fleet")["workers"]
        run.note("workers", [(each["worker_id"], each["device"]["uuid"]) for each in workers])
        pairs = (("resnet18", []), ("resnet18", ["--fp16"])), (("mobilenet_v2", []), ("resnet50", []))
        for pair in pairs:
            submitted = []
            for model, options in pair:
                path = str(run.models / f"{model}.onnx")
                arguments = ["build", path, "--gpu", run.gpu, *SHAPES, *OPTIONS, *options, "--detach"]
                submitted.append((model, options, run.cli(*arguments)["jobs"][0]["job_id"]))
            for model, options, job_id in submitted:
                view = run.cli("job", "watch", job_id)
                worker = view["attempts"][0]["worker_id"]
                use = view["plan"]["timing_cache"]
                run.note(
                    " ".join(["two:", model, *options]), {"worker": worker, "seconds": seconds(view), **use}
                )
        (head,) = run.cli("cache", "list")["timing_caches"]
        history = run.cli("cache", "show", head["key"])["timing_caches"]
        run.note("revisions", [(each["revision"], each["size_bytes"], each["worker_id"]) for each in history])
        for model, options in (pairs[0][0], pairs[0][1], pairs[1][1]):
            job = run.build(model, *options)
            run.forget(job)
            run.note(" ".join(["again:", model, *options]), brief(run.build(model, *options)))


def no_tf32(run: Run) -> None:
    """Outputs that differ from ONNX Runtime's by rounding only."""
    with run.worker():
        for model in ("resnet50", "mobilenet_v2"):
            compare(run, model, run.build(model, "--noTF32"), f"{model} fp32 without TF32")


def compare(run: Run, model: str, job: dict[str, Any], name: str) -> None:
    """A plan's outputs against ONNX Runtime's."""
    plan = run.out.parent / "plan"
    run.cli("plan", "pull", job["plan"]["digest"], "-o", str(plan))
    command = [sys.executable, str(HERE / "compare_outputs.py"), str(plan), str(run.models / f"{model}.npz")]
    compared = subprocess.run(command, capture_output=True, text=True)
    run.note(f"{name} outputs", compared.stdout.strip() or compared.stderr[-800:])


def figures(job: dict[str, Any]) -> Any:
    view = job.get("benchmark")
    if view is None:
        return job
    m = view["measurement"]
    return {
        "throughput_qps": m["throughput_qps"],
        "gpu_compute_ms": m["gpu_compute"],
        "enqueue_mean_ms": m["enqueue"]["mean"],
        "usage": m["usage"],
        "device_memory_bytes": m["device_memory_bytes"],
    }


def benchmark(run: Run) -> None:
    with run.worker():
        job = run.build("resnet50", "--fp16")
        digest = job["plan"]["digest"]
        shapes = "--shapes=input:1x3x224x224"
        options = ("--includeDataTransfers", "--noCudaGraph")
        run.note("transfers, no graph", figures(run.cli("benchmark", digest, shapes, *options)))
        run.note("two streams refused", run.cli("benchmark", digest, shapes, "--infStreams=2").get("error"))
        shared = run.build("resnet50", "--fp16", "--preview=+profileSharing0806")
        two = run.cli("benchmark", shared["plan"]["digest"], shapes, "--infStreams=2")
        run.note("two streams", figures(two))
        run.cli(
            "benchmark", digest, shapes, "--duration=1",
            f"--exportTimes={run.out / 'times.json'}",
            f"--exportProfile={run.out / 'profile.json'}",
            f"--exportLayerInfo={run.out / 'layers.json'}",
        )  # fmt: skip
        run.note("layers", json.loads((run.out / "profile.json").read_text())[:4])
        (run.out.parent / "resnet50-fp16.plan").unlink(missing_ok=True)
        run.cli("plan", "pull", digest, "-o", str(run.out.parent / "resnet50-fp16.plan"))


def inputs(run: Run) -> None:
    """Values from a file; a file of another size is refused before a GPU is asked."""
    with run.worker():
        plan = run.build("resnet18")["plan"]["digest"]
        path = run.out / "input.bin"
        path.write_bytes(bytes(8 * 3 * 224 * 224 * 4))
        measured = run.cli("benchmark", plan, f"--loadInputs=input:{path}", "--duration=1")
        run.note("inputs: zeros", figures(measured))
        run.note("inputs: of the job", measured["benchmark"]["options"]["inputs"])
        path.write_bytes(bytes(4))
        refusal = run.cli("benchmark", plan, f"--loadInputs=input:{path}")
        run.note("inputs: too short", refusal["error"])


def peer_build(run: Run) -> None:
    """trtexec builds ResNet-50 fp16 without a cache, as a whole process."""
    command = [
        os.environ["TRTEXEC"], f"--onnx={run.models / 'resnet50.onnx'}", "--fp16", *SHAPES, *OPTIONS,
        "--skipInference", f"--saveEngine={run.out.parent / 'peer.plan'}",
    ]  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    passed = time.monotonic() - started
    built = re.search(r"Engine built in ([\d.]+) sec", done.stdout)
    run.note(
        "trtexec builds resnet50 fp16, no cache",
        {"rc": done.returncode, "seconds": passed, "engine_seconds": built and float(built[1])},
    )


def fidelity(run: Run) -> None:
    """The same plan, by turns: trtexec, trtfarm. CUDA graph, no transfers, spin wait."""
    with run.worker():
        digest = run.build("resnet50", "--fp16")["plan"]["digest"]
        plan = run.out.parent / "resnet50-fp16.plan"
        run.cli("plan", "pull", digest, "-o", str(plan))
        shapes = "--shapes=input:1x3x224x224"
        command = [
            os.environ["TRTEXEC"], f"--loadEngine={plan}", shapes, "--useCudaGraph", "--noDataTransfers",
            "--useSpinWait", "--warmUp=200", "--duration=3",
        ]  # fmt: skip
        for turn in range(3):
            text = subprocess.run(command, capture_output=True, text=True).stdout
            run.note(f"fidelity {turn} trtexec", reported(text) or text[-1500:])
            ours = run.cli("benchmark", digest, shapes)["benchmark"]["measurement"]
            mean = ours["gpu_compute"]["mean"]
            run.note(f"fidelity {turn} trtfarm", {"qps": ours["throughput_qps"], "gpu_compute_mean_ms": mean})


def reported(text: str) -> dict[str, float]:
    """trtexec's own report."""
    throughput = re.search(r"Throughput: ([\d.]+) qps", text)
    compute = re.search(r"GPU Compute Time: .*?mean = ([\d.]+) ms", text)
    if not throughput or not compute:
        return {}
    return {"qps": float(throughput[1]), "gpu_compute_mean_ms": float(compute[1])}


def faults(run: Run) -> None:
    with run.worker() as worker:
        model = str(run.models / "mobilenet_v2.onnx")
        arguments = ["build", model, "--gpu", run.gpu, *SHAPES, *OPTIONS, "--noTF32", "--detach"]
        (job,) = run.cli(*arguments)["jobs"]
        wait_for(run, job["job_id"], "building")
        os.kill(run.child(worker), signal.SIGKILL)
        killed = time.monotonic()
        view = run.cli("job", "watch", job["job_id"])
        ended = [(each["number"], each["outcome"]) for each in view["attempts"]]
        run.note(
            "child killed in a build",
            {"state": view["state"], "attempts": ended, "seconds_after": time.monotonic() - killed},
        )


def wait_for(run: Run, job_id: str, stage: str) -> None:
    for _ in range(600):
        view = run.cli("job", "show", job_id)
        if (view["progress"] or {}).get("stage") == stage:
            return
        time.sleep(0.1)
    raise SystemExit(f"{job_id} did not get to {stage}: {view}")


def refused(run: Run) -> None:
    make_bad_models(run.models)
    with run.worker():
        for model in ("unsupported_op", "plugin_missing", "opset_too_new"):
            run.note(model, brief(run.build(model, shapes=False)))
        job = run.build("vit_b_16", "--memPoolSize=workspace:1")
        run.note("workspace of 1 MiB", brief(job))


def make_bad_models(folder: Path) -> None:
    from onnx import TensorProto, helper, save_model

    for name, operator, domain, opset in (
        ("unsupported_op", "Det", "", 17),
        ("plugin_missing", "MyPlugin", "com.example", 17),
        ("opset_too_new", "Gelu", "", 22),
    ):
        node = helper.make_node(operator, ["x"], ["y"], name=f"the_{operator}", domain=domain)
        tensors = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [2, 3, 3]) for each in "xy"]
        graph = helper.make_graph([node], "graph", tensors[:1], tensors[1:])
        domains = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        save_model(helper.make_model(graph, opset_imports=domains, ir_version=8), folder / f"{name}.onnx")


def main() -> None:
    run = Run(Path(sys.argv[1]), Path(sys.argv[2]))
    for stage in sys.argv[3:]:
        started = time.monotonic()
        try:
            globals()[stage](run)
        except (Exception, SystemExit) as error:
            run.note(f"{stage} failed", repr(error)[-3000:])
        run.note(f"{stage} took", time.monotonic() - started)


if __name__ == "__main__":
    main()
