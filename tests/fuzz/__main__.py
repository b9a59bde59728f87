"""`make fuzz`: models and requests for some minutes; a table, a report, and the models that did harm."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz import requests

ROOT = Path(__file__).parents[2]
_SILENT_SECONDS = 300.0  # a pipeline that says nothing for so long hangs
_TOLD_SECONDS = 30.0
_BAD = ("escapes", "hangs", "inspector faults", "faults", "dead")
_SHARE = 0.2  # of the models, that must get into the child


class Pipeline:
    """One process of tests.fuzz.models, and its last word."""

    def __init__(self, seed: int, seconds: float, limit: int, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._spoke = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.models",
            str(seed),
            str(seconds),
            str(limit),
            str(folder),
        ]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.counts, self._spoke = Counter(json.loads(line)), time.monotonic()

    def wait(self) -> Counter[str]:
        while self._process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() > self._spoke + _SILENT_SECONDS:
                self.counts["hangs"] += 1
                self._process.kill()
        self._reader.join()
        self.counts["dead"] = not self.counts.pop("alive", 0) or self._process.returncode != 0
        return self.counts


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Sends mutated models through inspector and TensorRT child, and requests to a farm.",
        epilog="Exit status: 0 nothing was found, 1 an escape, a hang, a 5xx, or something that died of it.",
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--models", type=int, default=2**31, help="at most; 0: none")
    parser.add_argument("--requests", type=int, default=20_000, help="at most; 0: none")
    parser.add_argument("--processes", type=int, default=max(1, min(8, os.cpu_count() or 1)))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="for the report")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: seed {chosen.seed}, {chosen.minutes:g} minutes", flush=True)
    report = _run(chosen)
    path = chosen.folder / "report.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _show(report)
    print(f"fuzz: {'nothing was found' if report['good'] else 'FOUND'}; the report is {path}", flush=True)
    return 0 if report["good"] else 1


def _run(chosen: argparse.Namespace) -> dict[str, Any]:
    seconds = chosen.minutes * 60
    started = time.monotonic()
    limit = -(-chosen.models // chosen.processes)
    pipelines = [
        Pipeline(chosen.seed + number, seconds, limit, chosen.folder)
        for number in range(chosen.processes if chosen.models else 0)
    ]
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        telling = threads.submit(_tell, pipelines, stop)
        counts, faults = Counter[str](), list[str]()
        if chosen.requests:
            counts, faults = requests.fuzz(chosen.seed, seconds, chosen.requests)
        counts["dead"] = not counts.pop("alive", 1)
        models = Counter[str]()
        for pipeline in pipelines:
            models.update(pipeline.wait())
        stop.set()
        telling.result()
    models.pop("kinds of answers", None)
    enough = not pipelines or models["accepted"] >= _SHARE * models["models"] > 0
    return {
        "seed": chosen.seed,
        "seconds": round(time.monotonic() - started, 1),
        "models": dict(sorted(models.items())),
        "requests": dict(sorted(counts.items())),
        "faults": faults[:100],
        "good": enough and not any(models[what] + counts[what] for what in _BAD),
    }


def _tell(pipelines: Sequence[Pipeline], stop: threading.Event) -> None:
    while not stop.wait(_TOLD_SECONDS):
        number = sum(pipeline.counts["models"] for pipeline in pipelines)
        print(f"fuzz: {number} models", flush=True)


def _show(report: dict[str, Any]) -> None:
    models, requests_ = Counter(report["models"]), Counter(report["requests"])
    rows = [
        ("models", models["models"]),
        ("  refused by inspection", models["refused by inspection"]),
        ("  into the child", models["accepted"]),
        ("    built", models["built"]),
        ("    refused by TensorRT", models["refused by TensorRT"]),
        ("    crashed", models["crashes"]),
        ("    ended at their limit of time", models["timeouts"]),
        ("  hangs", models["hangs"]),
        ("  escapes", models["escapes"]),
        ("  inspectors that died, or failed", models["inspector deaths"] + models["inspector faults"]),
        ("  workers dead at the end", models["dead"]),
        ("requests", requests_["requests"]),
        *((f"  {status}", requests_[status]) for status in ("2xx", "3xx", "4xx", "5xx")),
        ("  5xx, or no answer", requests_["faults"]),
        ("  servers dead at the end", requests_["dead"]),
    ]
    for name, number in rows:
        print(f"{name:36}{int(number):>9}")
    for fault in report["faults"][:10]:
        print(f"fault: {fault}")


if __name__ == "__main__":
    sys.exit(main())
