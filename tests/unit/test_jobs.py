from __future__ import annotations

from itertools import product

import pytest

from trtfarm.contract.jobs import LIVE, TERMINAL, TRANSITIONS, Disposition, JobState, Outcome, Scope

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = JobState

ALLOWED = {
    (QUEUED, RUNNING),  # claimed
    (QUEUED, CANCELLED),
    (QUEUED, SUCCEEDED),  # by the holder of a lease that had run out, if nobody claimed the job since
    (QUEUED, FAILED),
    (RUNNING, QUEUED),  # released, reaped or tried again
    (RUNNING, SUCCEEDED),
    (RUNNING, FAILED),
    (RUNNING, CANCELLED),
}


@pytest.mark.parametrize(("before", "after"), list(product(JobState, JobState)))
def test_who_may_follow_whom(before, after):
    assert (after in TRANSITIONS[before]) == ((before, after) in ALLOWED)


@pytest.mark.parametrize("state", JobState)
def test_a_state_is_live_or_terminal(state):
    assert (state in LIVE) != (state in TERMINAL)
    assert state.terminal == (state in TERMINAL)
    assert state.terminal == (not TRANSITIONS[state])


def test_every_state_can_be_reached_from_queued():
    reached = {QUEUED}
    while more := {after for state in reached for after in TRANSITIONS[state]} - reached:
        reached |= more
    assert reached == set(JobState)


def test_words_of_documents_and_rows_never_change():
    assert list(JobState) == ["queued", "running", "succeeded", "failed", "cancelled"]
    assert list(Disposition) == ["created", "joined", "reused"]
    assert list(Outcome) == ["complete", "failed", "timeout", "crashed", "lost", "released", "cancelled"]


@pytest.mark.parametrize(
    ("scope", "included"),
    [
        (Scope.READ, {Scope.READ}),
        (Scope.SUBMIT, {Scope.READ, Scope.SUBMIT}),
        (Scope.ADMIN, {Scope.READ, Scope.SUBMIT, Scope.ADMIN}),
    ],
)
def test_scopes_include_those_before_them(scope, included):
    assert {other for other in Scope if scope.includes(other)} == included
