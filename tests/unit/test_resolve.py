"""Which of several plans is the best, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_fit import AMPERE, RTX, SAME, VC, machine, plan
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import PlanFacts
from trtfarm.contract.machine import MachineRequest, Wanted
from trtfarm.contract.resolve import MAX_CONSIDERED, Choice, ResolveRequest, Speed, decide


def built(
    number: int, gpu: str = "h200", runtime: str = "tensorrt-10.16.1.11", **config: object
) -> PlanFacts:
    facts = plan(gpu, runtime, **config)
    return replace(facts, digest=Digest.of_bytes(str(number).encode()), job_id=f"job-{number:04}")


def test_nothing_was_ever_built() -> None:
    found = decide(machine(), [])
    assert (found.chosen, found.choice, found.considered) == (None, None, ())
    assert "No plan of this model" in found.why[0]


def test_the_only_one() -> None:
    only = built(1)
    found = decide(machine(), [only, built(2, "l4")])
    assert (found.chosen, found.choice) == (only, Choice.ONLY)
    assert [each.distance > 0 for each in found.considered] == [True]


@pytest.mark.parametrize("order", [1, -1])
def test_the_closest_goes_first(order: int) -> None:
    """GPU before version, however old, however fast."""
    exact = built(1)
    exact_vc = built(2, runtime="tensorrt-10.9.0.34", **VC)
    compatible = built(3, "h100-pcie", **SAME)
    both = built(4, "l4", "tensorrt-10.9.0.34", **AMPERE, **VC)
    ranked = [exact, exact_vc, compatible, both]
    speeds = {each.digest: Speed(1.0 / number, "") for number, each in enumerate(ranked, 1)}
    while ranked:
        found = decide(machine(), ranked[::order], speeds=speeds)
        assert found.chosen is ranked[0]
        assert found.choice is (Choice.CLOSEST if len(ranked) > 1 else Choice.ONLY)
        assert [each.digest for each in found.considered] == [each.digest for each in ranked[1:]]
        assert all("less closely" in each.message for each in found.considered)
        ranked.pop(0)


def test_the_fastest_measured_then_the_newest() -> None:
    slow, fast, unmeasured = built(1, fp16=True), built(2, bf16=True), built(3)
    plans = [slow, fast, unmeasured]
    speeds = {slow.digest: Speed(2.0, "8x3"), fast.digest: Speed(1.0, "8x3")}
    found = decide(machine(), plans, speeds=speeds)
    assert (found.chosen, found.choice) == (fast, Choice.FASTEST)
    assert "1.000 ms" in found.why[-1]
    assert ["slower" in each.message or "never measured" in each.message for each in found.considered] == [
        True
    ] * 2
    newest = decide(machine(), plans)
    assert (newest.chosen, newest.choice) == (unmeasured, Choice.NEWEST)


def test_measurements_that_cannot_be_compared_decide_nothing() -> None:
    old, new = built(1, fp16=True), built(2)
    speeds = {old.digest: Speed(1.0, "1x3"), new.digest: Speed(9.0, "64x3")}
    found = decide(machine(), [old, new], speeds=speeds)
    assert (found.chosen, found.choice) == (new, Choice.NEWEST)
    assert "different shapes" in found.why[-1]


def test_a_miss_tells_the_nearest_first() -> None:
    near = built(1, runtime="tensorrt-10.16.0.11")
    plans = [built(2, "l4"), built(3, "cc-9.0", RTX), near, built(4, runtime="tensorrt-8.6.1")]
    found = decide(machine(), plans)
    assert found.chosen is None
    assert found.considered[0].digest == near.digest
    distances = [each.distance for each in found.considered]
    assert distances == sorted(distances)
    assert "built with TensorRT 10.16.0.11, you have 10.16.1.11" in found.why[0]


def test_a_lost_plan_makes_room_for_the_next() -> None:
    best, next_best = built(2), built(1, fp16=True)
    found = decide(machine(), [best, next_best], lost=frozenset({best.digest}))
    assert (found.chosen, found.choice) == (next_best, Choice.ONLY)
    assert "lost" in found.considered[0].message


def test_the_list_is_short_and_those_that_fit_come_first() -> None:
    plans = [
        built(number, "h200" if number % 10 == 0 else "l4", max_aux_streams=number) for number in range(99)
    ]
    found = decide(machine(), plans)
    assert found.chosen is plans[90]
    assert len(found.considered) == MAX_CONSIDERED
    assert [each.distance for each in found.considered[:9]] == [0] * 9
    assert all(each.distance for each in found.considered[9:])


def test_constraints_are_the_fields_that_are_named() -> None:
    def wanted(**config: object) -> Wanted:
        here = MachineRequest(runtime="tensorrt-10.16.1.11")
        request = ResolveRequest(model="a:b", machine=here, config=BuilderConfig(**config))  # type: ignore[arg-type]
        again = ResolveRequest.model_validate_json(request.model_dump_json(exclude_unset=True))
        assert again.wanted == request.wanted
        return again.wanted

    assert wanted() == Wanted()
    assert wanted(fp16=True) == Wanted({"fp16": True})
    assert wanted(fp16=False) == wanted(fp16=None) == Wanted({"fp16": None})
    assert wanted(memory_pool_limits={"workspace": 1}) == Wanted({"memory_pool_limits": {"workspace": 1}})
