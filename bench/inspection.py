"""inspection_p99: how fast others are answered while 50 slow models of one key are read."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench import load
from bench.farm import Farm, Servers, farm
from bench.figures import BenchError, Figure, Goal, percentile, summary
from tests.security.hostile_models import attributes
from trtfarm.contract.digest import Digest

NAME = "inspection_p99"
GOAL = Goal("ours", "most", 100)
MODELS = 50
MODEL_BYTES = 6_000_000  # takes seconds, and is then let pass or refused
RATE = 40.0  # of both routes together
SECONDS = 15.0
_CONNECTIONS = 8
_SETTLED_SECONDS = 3.0  # until the last bytes of all are written
_PATHS = ("/readyz", "/v1/jobs")


def measure(servers: Servers) -> list[Figure]:
    with farm(servers, workers=0) as running:
        _answers(running, 2.0)  # warms
        idle = _answers(running, SECONDS)
        busy, left = _with_models(running)
    return [
        Figure(
            NAME,
            percentile(busy, 99) * 1e3,
            percentile(idle, 99) * 1e3,
            " ms",
            f"GET {' and '.join(_PATHS)} of the same server, idle",
            GOAL,
            {"models": MODELS, "left_at_the_end": left, "busy": summary(busy), "idle": summary(idle)},
        )
    ]


def _answers(running: Farm, seconds: float) -> list[float]:
    requests = [load.get(path, running.key) for path in _PATHS]
    return load.open_loop(
        running.port,
        lambda number: requests[number % len(requests)],
        expect=200,
        rate=RATE,
        count=int(RATE * seconds),
        connections=_CONNECTIONS,
    )


def _with_models(running: Farm) -> tuple[list[float], int]:
    """Seconds to the answers, and how many models were still waiting or being read after the last."""
    arrived = threading.Semaphore(0)

    def send(number: int) -> None:
        headers = {"Authorization": f"Bearer {running.key}"}
        with httpx.Client(base_url=running.url, headers=headers, timeout=None, trust_env=False) as http:
            data = attributes(MODEL_BYTES + number)
            announcement = {"digest": Digest.of_bytes(data), "size_bytes": len(data)}
            upload = http.post("/v1/uploads", json=announcement).json()["upload_id"]
            arrived.release()
            with contextlib.suppress(httpx.TransportError):  # at the end the server goes away
                http.patch(f"/v1/uploads/{upload}", content=data, headers={"Upload-Offset": "0"})

    with ThreadPoolExecutor(MODELS) as threads:
        sent = [threads.submit(send, number) for number in range(MODELS)]
        for _ in range(MODELS):
            arrived.acquire()
        time.sleep(_SETTLED_SECONDS)
        busy = _answers(running, SECONDS)
        left = sum(not future.done() for future in sent)
        if not left:
            raise BenchError("the models are read before the measurement ends; make them slower")
        os.kill(running.pids[0], signal.SIGKILL)  # nobody waits for the rest
    return busy, left
