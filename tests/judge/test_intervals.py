import pytest

from groundup.judge.intervals import bootstrap_interval, wilson_interval


def test_the_bootstrap_agrees_with_scipy() -> None:
    # scipy.stats.bootstrap((x,), numpy.mean, method="percentile", n_resamples=100000), scipy 1.17
    values = [50, 60, 70, 80, 90, 100, 20, 85, 85, 85]
    assert bootstrap_interval(values, seed=1) == pytest.approx((57.5, 85.0), abs=1)


def test_the_bootstrap_agrees_with_the_normal_distribution() -> None:
    interval = bootstrap_interval([0, 1] * 200, seed=1)
    assert interval == pytest.approx((0.5 - 0.049, 0.5 + 0.049), abs=0.003)


def test_the_seed_repeats_the_bootstrap() -> None:
    values = [x**0.5 for x in range(40)]
    assert bootstrap_interval(values, 5) == bootstrap_interval(values, 5)
    assert bootstrap_interval(values, 5) != bootstrap_interval(values, 6)


def test_one_value_says_nothing_about_spread() -> None:
    assert bootstrap_interval([5], 1) is None
    assert bootstrap_interval([], 1) is None
    assert bootstrap_interval([5, 5], 1) == (5, 5)


@pytest.mark.parametrize(
    ("wins", "count", "interval"),
    [  # scipy.stats.binomtest(wins, count).proportion_ci(method="wilson"), scipy 1.17
        (10, 20, (0.29929801, 0.70070199)),
        (0, 10, (0.0, 0.27753280)),
        (7, 10, (0.39677815, 0.89220873)),
    ],
)
def test_wilson_agrees_with_scipy(wins: int, count: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(wins, count) == pytest.approx(interval, abs=1e-7)


def test_nothing_counted_has_no_rate() -> None:
    assert wilson_interval(0, 0) is None
