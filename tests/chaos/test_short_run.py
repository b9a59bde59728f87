"""``make chaos`` in small, so that it is there when it is needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos import plan
from tests.chaos.__main__ import Run

SEED = 11
JOBS, SECONDS, FAULTS = 40, 12.0, 15


def test_a_seed_is_a_plan() -> None:
    for embedded in (True, False):
        first, again, other = (plan.faults(seed, 60, 50, embedded=embedded) for seed in (1, 1, 2))
        assert first == again != other
    assert list(plan.jobs(1, 50, 2)) == list(plan.jobs(1, 50, 2)) != list(plan.jobs(2, 50, 2))


@pytest.mark.timeout(600)
def test_a_short_run_of_each_back_end(tmp_path: Path) -> None:
    runs = [Run(tmp_path / name, SEED, JOBS, SECONDS, FAULTS) for name in ("postgresql", "sqlite")]
    with ThreadPoolExecutor(len(runs)) as pool:
        ended = [pool.submit(runs[0].distributed), pool.submit(runs[1].embedded)]
    for report in (each.result() for each in ended):
        assert report.violations == []
        assert report.numbers["jobs"] >= JOBS
        assert report.numbers["faults"] > FAULTS / 3  # not each finds a victim
