"""trtexec's definitions of its metrics."""

from __future__ import annotations

import pytest

from trtfarm.contract.benchmark import BenchmarkOptions, Metric


@pytest.mark.parametrize(("percentile", "index"), [(99, 990), (90, 899), (50, 499), (0, 0), (100, 999)])
def test_percentiles_are_samples_chosen_as_float32_arithmetic_chooses_them(
    percentile: int, index: int
) -> None:
    samples = [float(value) for value in range(1000)]
    metric = Metric.of(samples, [percentile])
    assert metric.percentiles == {str(percentile): samples[index]}


def test_a_metric_does_not_depend_on_the_order_of_its_samples() -> None:
    metric = Metric.of([3.0, 1.0, 2.0, 4.0], (90,))
    assert (metric.min, metric.max, metric.mean, metric.median) == (1.0, 4.0, 2.5, 2.5)
    assert metric.coefficient_of_variation == pytest.approx(100 * (1.25**0.5) / 2.5)
    assert metric == Metric.of([1.0, 2.0, 3.0, 4.0], (90,))


def test_one_sample_is_enough() -> None:
    assert Metric.of([2.0], (99,)).percentiles == {"99": 2.0}


def test_nothing_copied_is_zero_and_not_an_error() -> None:
    assert Metric.of([0.0, 0.0], (99,)).coefficient_of_variation == 0


def test_the_defaults_are_those_of_trtexec_11() -> None:
    options = BenchmarkOptions()
    assert (options.cuda_graph, options.spin_wait, options.transfers) == (True, True, False)
    assert (options.warm_up_ms, options.duration_seconds, options.iterations) == (200, 3, 10)
