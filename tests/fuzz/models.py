"""Mutated models → inspector → sandboxed TensorRT child, as an uploaded model goes; one pipeline a process.

    python -m tests.fuzz.models SEED SECONDS MODELS FOLDER

Prints its counts as a line of JSON now and then; what is found lies in FOLDER.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz import seeds
from tests.fuzz.mutate import Mutator
from tests.fuzz.traps import Canaries, adopt_orphans, children, command_of, sockets
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import ModelError
from trtfarm.inspection.pool import InspectionPool
from trtfarm_worker.child.process import Crashed, Interrupted, TensorRTChild
from trtfarm_worker.child.protocol import BuildRequest, Built, Failed
from trtfarm_worker.settings import WorkerSettings

LIMIT_SECONDS = 120.0  # for one model
_MEMORY_BYTES = 6 << 30
_REPORT_SECONDS = 1.0
_FEW = 1000  # models, for which it is not worth making those of every operator
_LIGHT_EVERY = 400  # models: such a network takes seconds
_INSPECTOR, _CHILD = "trtfarm.inspection.child", "trtfarm_worker.tensorrt.child"
_PARTS = re.compile(r"'[^']*'|\"[^\"]*\"|\S*\d\S*|[^A-Za-z]+")


class Pipeline:
    """``counts``: of what became of the models."""

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._canaries = Canaries(folder / "home", folder / "work" / "another-attempt", folder / "cwd")
        os.chdir(folder / "cwd")
        os.environ["HOME"] = str(folder / "home")
        self._config = parse_build_options([])
        self._pool = InspectionPool(timeout_seconds=LIMIT_SECONDS)
        settings = WorkerSettings(scratch=folder / "scratch", child_memory_bytes=_MEMORY_BYTES)
        self._child = TensorRTChild(settings)
        self._runtime = self._child.start().runtime
        self._pool.warm()
        self._sockets = self._open_sockets()
        self._deadline = 0.0
        self._saved: Counter[str] = Counter()

    def close(self) -> None:
        self._pool.close()
        self._child.kill()

    def put(self, data: bytes, origin: str) -> str:
        """What became of a model: ``built``, a code, ``crash SIGNAL``, ``timeout`` or ``hang``."""
        attempt = self._folder / "work" / "attempt"
        attempt.mkdir(exist_ok=True)
        model = attempt / "model.onnx"
        model.write_bytes(data)
        self.counts["models"] += 1
        verdict = self._inspect(model)
        if verdict is None:
            self.counts["accepted"] += 1
            verdict = self._build(model, data)
        self._look(model, data, origin)
        for path in attempt.iterdir():
            path.unlink()
        if verdict.startswith(("crash", "hang", "timeout", "inspector died")):
            self._save(verdict, data, origin)
        return verdict

    def is_alive(self, data: bytes) -> bool:
        """Whether a good model is built still."""
        return self.put(data, "the last") == "built"

    def _inspect(self, model: Path) -> str | None:
        try:
            self._pool.inspect(model, {})
        except ModelError as error:
            if "died of it" in error.message:
                self.counts["inspector deaths"] += 1
                return "inspector died"
            if error.code == "RESOURCE_LIMIT" and " s." in error.message:
                self.counts["hangs"] += 1
                return "hang in the inspector"
            if "could not be read" in error.message:
                self.counts["inspector faults"] += 1
                return "inspector died of a fault of ours"
            self.counts["refused by inspection"] += 1
            return f"inspection {error.code} {skeleton(error.message)}"
        return None

    def _build(self, model: Path, data: bytes) -> str:
        target = Target(gpu="cc-8.9", compute_capability="8.9", runtime=self._runtime)
        request = BuildRequest(
            spec=BuildSpec(
                model=Digest.of_bytes(data),
                target=target,
                config=self._config.config,
                profiles=self._config.profiles,
            ),
            model_path=str(model),
            plan_path=str(model.with_name("plan")),
            io_path=str(model.with_name("io.json")),
            log_path=str(model.with_name("log")),
        )
        self._deadline = time.monotonic() + LIMIT_SECONDS
        done = self._child.run(request, self._interruption, lambda _: None, "fuzz")
        if isinstance(done, Built):
            self.counts["built"] += 1
            return "built"
        if isinstance(done, Failed):
            self.counts["refused by TensorRT"] += 1
            self.counts[f"code {done.error.code}"] += 1
            return f"TensorRT {_words(done.error)}"
        if isinstance(done, Crashed):
            self.counts["crashes"] += 1
            self.counts[f"crash {done.status}"] += 1
            if done.status is None or done.status >= 0:
                self.counts["faults"] += 1  # TensorRT dies of signals: this was code of ours
            return f"crash {done.status}"
        assert isinstance(done, Interrupted)
        # It was ended at its limit, as a job is by its own: what does not end then hangs.
        self.counts["timeouts"] += 1
        return "timeout in TensorRT"

    def _interruption(self) -> Outcome | None:
        if self._open_sockets() > self._sockets:
            self._escaped("a socket was opened")
        return Outcome.TIMEOUT if time.monotonic() > self._deadline else None

    def _open_sockets(self) -> int:
        """The sockets of the TensorRT child and what it has forked."""
        mine = [pid for pid in children(os.getpid()) if _CHILD in command_of(pid)]
        return max((sockets(each) for pid in mine for each in (pid, *children(pid))), default=0)

    def _look(self, model: Path, data: bytes, origin: str) -> None:
        wrong = self._canaries.changed()
        expected = {"model.onnx", "plan", "io.json", "log"}
        wrong += [
            path.name for path in model.parent.iterdir() if path.name not in expected or path.is_symlink()
        ]
        if model.read_bytes() != data:
            wrong.append("the model")
        wrong += self._processes()
        for what in wrong:
            self._escaped(what)
            self._save("escape", data, origin)

    def _processes(self) -> Iterator[str]:
        """An inspector with a process that reads, and a TensorRT child without any: all else has got out."""
        number: Counter[str] = Counter()
        for pid in children(os.getpid()):
            command = command_of(pid)
            if not command:
                continue  # it has ended
            kind = next((kind for kind in (_INSPECTOR, _CHILD) if kind in command), "")
            number[kind] += 1
            below = children(pid)
            if not kind or number[kind] > 1 or len(below) > (kind == _INSPECTOR) or any(map(children, below)):
                yield f"a process: {command}"

    def _escaped(self, what: str) -> None:
        self.counts["escapes"] += 1
        print(f"escape: {what}", file=sys.stderr, flush=True)

    def _save(self, verdict: str, data: bytes, origin: str) -> None:
        """The first of a kind; names say what they are."""
        kind = re.sub(r"[^a-z0-9-]+", "-", f"{verdict} {origin}".lower())[:80]
        self._saved[verdict] += 1
        if self._saved[verdict] <= 200:
            (self._folder / "found").mkdir(exist_ok=True)
            name = f"{kind}-{Digest.of_bytes(data).hex[:8]}.onnx"
            (self._folder / "found" / name).write_bytes(data)


def skeleton(message: str) -> str:
    """The words of a message, without names and numbers: another skeleton is another place in TensorRT."""
    return " ".join(_PARTS.sub(" ", message).split())[:120]


def _words(error: ErrorView) -> str:
    return f"{error.code} {skeleton(error.message)}"


def fuzz(seed: int, seconds: float, limit: int, folder: Path) -> bool:
    """Whether all is well; prints counts."""
    light = list(seeds.light().values())
    every = seeds.shipped() | seeds.corpus()
    if limit > _FEW:
        every |= seeds.nodes()
    mutator = Mutator(seed, list(every.values()), light)
    good = next(data for name, data in every.items() if "ReLU" in name)
    pipeline = Pipeline(folder)
    seen: set[str] = set()
    end, told = time.monotonic() + seconds, 0.0
    try:
        whole = _as_they_are(seed, light)
        while time.monotonic() < end and pipeline.counts["models"] < limit:
            data = next(whole, None) if pipeline.counts["models"] % _LIGHT_EVERY == 7 else None
            data = data or mutator.model()
            verdict = pipeline.put(data, f"seed {seed}")
            if verdict not in seen and len(data) < (32 << 10):
                seen.add(verdict)
                mutator.remember(data)
            if time.monotonic() > told + _REPORT_SECONDS:
                told = time.monotonic()
                _report(pipeline, seen)
        pipeline.counts["alive"] = pipeline.is_alive(good)
        _report(pipeline, seen)
    finally:
        pipeline.close()
    return bool(pipeline.counts["alive"])


def _as_they_are(seed: int, light: Sequence[bytes]) -> Iterator[bytes]:
    """Whole networks, first each as it is and then mutated."""
    yield from light
    mutator = Mutator(seed, light, [])
    while light:
        yield mutator.model()


def _report(pipeline: Pipeline, seen: set[str]) -> None:
    print(json.dumps(pipeline.counts | {"kinds of answers": len(seen)}), flush=True)


def main() -> int:
    seed, seconds, limit, folder = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="trtfarm-fuzz-") as work:
        try:
            return 0 if fuzz(seed, seconds, limit, Path(work)) else 1
        finally:
            os.chdir("/")
            if (found := Path(work, "found")).exists():
                for path in found.iterdir():
                    (folder / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
