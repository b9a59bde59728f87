"""Who a job runs for: joining, withdrawing, quotas."""

from __future__ import annotations

from tests import values
from tests.integration.test_turns import key, submit
from trtfarm.contract.jobs import LOCAL


def test_a_claim_says_on_whose_behalf_it_runs(farm):
    mine, theirs = key(farm, None), key(farm, 1)
    submit(farm, mine, 0)
    submit(farm, theirs, 1)
    farm.create(values.spec(2))
    claims = [farm.claimed() for _ in range(3)]
    assert [claim.submitter for claim in claims] == [mine, theirs, LOCAL]
