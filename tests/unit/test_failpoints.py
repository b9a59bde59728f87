"""Failpoints: where they are, and what they do."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.acceptance.processes import clean_environment
from tests.meta.repository import sources
from trtfarm.failpoints import POINTS, VARIABLE

PROGRAM = """
from trtfarm.failpoints import reach
for number in range(3):
    reach("worker.after_claim")
    print(number, flush=True)
"""


def run(setting: str) -> subprocess.CompletedProcess[str]:
    env = clean_environment() | {VARIABLE: setting}
    return subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True)


def test_every_point_is_somewhere_and_no_other():
    reached = [
        name for _, path in sources() for name in re.findall(r'\breach\("([^"]+)"\)', path.read_text("utf-8"))
    ]
    assert set(reached) == POINTS


def test_without_the_variable_nothing_happens():
    done = run("")
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n")


def test_a_process_dies_at_the_visit_that_was_named():
    done = run("worker.after_claim:kill9@3")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "0\n1\n")


def test_it_raises_what_nobody_expects():
    done = run("worker.after_claim:raise")
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "trtfarm.failpoints.FailpointError: worker.after_claim"


def test_it_sleeps():
    assert run("worker.after_claim:sleep=0.1,dispatcher.before_ring:kill9").stdout == "0\n1\n2\n"


@pytest.mark.parametrize(
    "setting", ["worker.after_lunch:kill9", "worker.after_claim:kill", "worker.after_claim"]
)
def test_what_it_cannot_mean_is_an_error(setting: str):
    done = run(setting)
    assert done.returncode == 1
    assert "there is no" in done.stderr
