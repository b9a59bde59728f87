"""reuse_p99: submissions that a finished build answers, at a steady rate, beside the server's own floor."""

from __future__ import annotations

import os

from bench import load, stand_in
from bench.farm import Servers, farm
from bench.figures import Figure, Goal, percentile, summary
from bench.submissions import submission
from bench.submit_to_plan import model_file
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient

NAME = "reuse_p99"
GOAL = Goal("ours", "most", 25)
RATE = 100.0
SLICES = 4  # of ours and of the peer, in turn
SECONDS = 5.0  # a slice
_CONNECTIONS = 8
_WORKSPACE = 1 << 20
_PLAN_BYTES = 1 << 20


def measure(servers: Servers) -> list[Figure]:
    ours: list[float] = []
    floor: list[float] = []
    with farm(servers, workers=0) as running, FarmClient(running.url, running.key) as client:
        worker = stand_in.register(running.database)
        model = model_file()
        digest = client.upload_model(model, manifest_of(model))
        with load.Connection(running.port) as connection:
            connection.exchange(submission(digest, _WORKSPACE, running.key))
        plan = running.folder / "plan"
        plan.write_bytes(os.urandom(_PLAN_BYTES))
        stand_in.finish_one(running, worker, plan)
        for number in range(-1, SLICES):
            count = int(RATE * SECONDS)
            reused = load.open_loop(
                running.port,
                lambda _: submission(digest, _WORKSPACE, running.key),
                expect=200,
                rate=RATE,
                count=count,
                connections=_CONNECTIONS,
            )
            answered = load.open_loop(
                running.port,
                lambda _: load.get("/healthz"),
                expect=200,
                rate=RATE,
                count=count,
                connections=_CONNECTIONS,
            )
            if number >= 0:  # the first slice warms
                ours += reused
                floor += answered
    return [
        Figure(
            NAME,
            percentile(ours, 99) * 1e3,
            percentile(floor, 99) * 1e3,
            " ms",
            "GET /healthz of the same server at the same rate",
            GOAL,
            {"rate": RATE, "reuse": summary(ours), "healthz": summary(floor)},
        )
    ]
