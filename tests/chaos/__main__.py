"""``make chaos``: a farm under faults that are drawn from a seed, and the check of what must hold then."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.acceptance import models
from tests.acceptance.farms import RedisProcess
from tests.chaos import plan
from tests.chaos.checker import Report, check
from tests.chaos.client import Client, History
from tests.chaos.farm import ChaosFarm, Gpu
from tests.chaos.load import Load
from tests.chaos.nemesis import Nemesis, Servers
from tests.chaos.parts import Part, Supervisor, eventually
from tests.chaos.proxy import Proxy
from tests.chaos.servers import postgres
from tests.integration.conftest import opened
from trtfarm_db.schema import upgrade

ENTERPRISE, RTX = "tensorrt-10.16.1", "tensorrt-rtx-1.7.1.116"
PRODUCTS = (("NVIDIA L4", "l4"), ("Tesla T4", "t4"))
GPUS_EACH = 3
MODELS = 12
CLIENTS = 8
PATIENCE_SECONDS = 300.0
# Between those of the tests and those of a real farm: no lease runs out because this machine is busy.
SETTINGS = {
    "TRTFARM_WORKER_HEARTBEAT_SECONDS": "0.5",
    "TRTFARM_WORKER_LEASE_SECONDS": "3",
    "TRTFARM_WORKER_IDLE_POLL_SECONDS": "2",
    "TRTFARM_WORKER_RETRY": '{"backoff_seconds": 0.2}',
    "TRTFARM_SERVER_LEASE_SECONDS": "3",
    "TRTFARM_SERVER_DISPATCH_SECONDS": "0.5",
    "TRTFARM_SERVER_RETRY": '{"backoff_seconds": 0.2}',
    "TRTFARM_MAINTENANCE_PERIOD_SECONDS": "5",
    "TRTFARM_MAINTENANCE_GRACE_HOURS": "0.002",
    "TRTFARM_DATABASE_POOL_SIZE": "4",
    "TRTFARM_DATABASE_CONNECT_TIMEOUT_SECONDS": "2",
}


def main() -> int:
    arguments = _arguments()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    ended = [
        _one(each, seed, arguments)
        for each in (["postgresql", "sqlite"] if arguments.on == "both" else [arguments.on])
    ]
    return 0 if all(ended) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of a run to repeat; by default another one each time")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=3.0, help="over which jobs and faults are spread")
    parser.add_argument("--faults", type=int, help="by default one for eight jobs")
    parser.add_argument("--on", choices=["postgresql", "sqlite", "both"], default="both")
    parser.add_argument("--keep", type=Path, help="a folder for logs and data, which stay")
    return parser.parse_args()


def _one(back_end: str, seed: int, arguments: argparse.Namespace) -> bool:
    """Whether all that must hold did."""
    count = arguments.faults if arguments.faults is not None else arguments.jobs // 8
    how = f"SEED={seed} JOBS={arguments.jobs} MINUTES={arguments.minutes:g} FAULTS={count} ON={back_end}"
    print(f"chaos: {how}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        run = Run(folder / back_end, seed, arguments.jobs, arguments.minutes * 60, count)
        report = run.embedded() if back_end == "sqlite" else run.distributed()
    print(json.dumps(report.numbers, indent=2, sort_keys=True, default=str), flush=True)
    for violation in report.violations[:50]:
        print(f"VIOLATED: {violation}", flush=True)
    held = "all that must hold did" if not report.violations else f"{len(report.violations)} violations"
    print(f"chaos: {held}; again: make chaos {how}", flush=True)
    return not report.violations


class Run:
    def __init__(self, folder: Path, seed: int, jobs: int, seconds: float, faults: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._seed, self._seconds, self._faults = folder, seed, seconds, faults
        self._jobs = list(plan.jobs(seed, jobs, len(PRODUCTS)))

    def distributed(self) -> Report:
        with postgres(self._folder / "postgres.log") as server, contextlib.ExitStack() as stack:
            redis = RedisProcess(self._folder)
            redis.start()
            stack.callback(redis.stop)
            proxies = [Proxy(server.port), Proxy(redis.port)]
            for each in proxies:
                each.start()
                stack.callback(each.stop)
            real = server.url(server.port)
            database = opened(real)
            upgrade(database)
            database.close()
            redis_url = redis.url.replace(str(redis.port), str(proxies[1].port))
            settings = SETTINGS | {"TRTFARM_DATABASE_URL": server.url(proxies[0].port)}
            farm = ChaosFarm(
                self._folder / "farm", settings["TRTFARM_DATABASE_URL"], redis_url, real, settings
            )
            apis = [farm.server(name=f"api-{number}") for number in range(2)]
            gpus = [
                Gpu(f"GPU-chaos-{os.getpid()}-{slug}-{number}", product, slug)
                for product, slug in PRODUCTS
                for number in range(GPUS_EACH)
            ]
            workers = [farm.worker(f"worker-{gpu.slug}-{gpu.uuid[-1]}", gpu) for gpu in gpus]
            queues = [f"{ENTERPRISE}.{slug}" for _, slug in PRODUCTS]
            servers = Servers(server, proxies[0], redis, proxies[1], queues)
            nemesis = Nemesis(farm, servers, apis, workers, gpus)
            targets = [(slug, ENTERPRISE) for _, slug in PRODUCTS]
            report = self._go(farm, [*apis, *workers], nemesis, targets)
            for gpu in gpus:
                for place in ("/run/lock", "/tmp"):
                    Path(place, f"trtfarm-{gpu.uuid}.lock").unlink(missing_ok=True)
            return report

    def embedded(self) -> Report:
        folder = self._folder / "farm"
        url = f"sqlite:///{folder / 'home' / 'farm.sqlite'}"
        farm = ChaosFarm(folder, url, None, url, SETTINGS | {"TRTFARM_WORKER_SLOTS": "3"})
        api = farm.server()
        return self._go(farm, [api], Nemesis(farm, None, [api], []), [("cc-8.9", RTX)])

    def _go(
        self, farm: ChaosFarm, parts: list[Part], nemesis: Nemesis, targets: list[tuple[str, str]]
    ) -> Report:
        history, began_at = History(), time.monotonic()
        planned = plan.faults(self._seed, self._seconds, self._faults, embedded=farm.embedded)
        try:
            with Supervisor(parts) as supervisor:
                urls = [f"http://127.0.0.1:{port}" for port in farm.ports]
                with Client(urls[0], history, PATIENCE_SECONDS) as client:
                    digests = [client.upload(path) for path in self._models()]
                    for url in urls:
                        with Client(url, history, PATIENCE_SECONDS) as other:
                            other.ready()
                    load = Load(
                        history, urls, digests, targets, self._jobs,
                        clients=CLIENTS, seconds=self._seconds, patience_seconds=PATIENCE_SECONDS,
                    )  # fmt: skip
                    with _reporting(load, nemesis, history):
                        faults = threading.Thread(target=nemesis.run, args=(planned,), daemon=True)
                        faults.start()
                        load.run()
                        faults.join()
                        nemesis.heal()
                    took = time.monotonic() - began_at
                    metrics = self._quiet(client)
            stopped = {part.name: part.stop() for part in reversed(parts)}
        finally:
            nemesis.stop()
            for part in parts:
                part.kill()
        report = check(farm, history)
        report.expect(not any(stopped.values()), f"exit statuses {stopped}")
        report.expect(not nemesis.errors, f"faults that could not be done: {nemesis.errors[:5]}")
        report.expect(not metrics, f"metrics tell of live jobs: {metrics}")
        for log in farm.logs:
            text = log.read_text(errors="replace")
            first = text.find("Traceback")
            report.expect(first < 0, f"{log.name}: {text[first - 500 : first + 3000]}")
        report.numbers |= {
            "seed": self._seed,
            "seconds": round(took),
            "faults": sum(nemesis.done.values()),
            "faults_by_kind": {fault.value: count for fault, count in sorted(nemesis.done.items())},
            "faults_without_a_victim": sum(nemesis.missed.values()),
            "processes_started_again": supervisor.restarts,
        }
        return report

    def _models(self) -> Iterator[Path]:
        for number in range(MODELS):
            yield models.small(self._folder / f"model-{number}.onnx", self._seed % 1000 * 100 + number)
        yield models.padded(self._folder / "padded.onnx", 3 << 20)

    @staticmethod
    def _quiet(client: Client) -> list[str]:
        """Live jobs that the metrics still tell of when all clients have ended. Joined builds may go on."""

        def live() -> list[str]:
            lines = client.metrics().splitlines()
            return [line for line in lines if line.startswith("trtfarm_jobs{") and not line.endswith(" 0.0")]

        eventually(lambda: not live(), 60, 0.5)
        return live()


@contextlib.contextmanager
def _reporting(load: Load, nemesis: Nemesis, history: History) -> Iterator[None]:
    """A line now and then."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(15):
            now = time.strftime("%H:%M:%S")
            done: Any = sum(nemesis.done.values())
            found = len(history.violations)
            print(f"{now}  {load.done} jobs, {done} faults, {found} violations", flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
