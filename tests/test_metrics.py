"""Metrics against closed forms, direct counting and simulated coverage."""

import math

import numpy as np
import pytest

from lmlite import metrics
from lmlite.metrics import classes, text

TARGETS = np.array([0, 0, 1, 1, 2])
PREDICTED = np.array([0, 1, 1, 1, 0])


def test_accuracy_is_a_share_of_the_items_that_count():
    assert classes.accuracy(PREDICTED, TARGETS) == 3 / 5
    mask = np.array([True, True, True, False, False])
    assert classes.accuracy(PREDICTED, TARGETS, mask) == 2 / 3
    assert math.isnan(classes.accuracy(PREDICTED, TARGETS, np.zeros(5, bool)))


def test_exact_match_is_exact():
    found = text.exact_match(["a b", " a b", "a  b", "A b"], ["a b", "a b", "a b", "a b"])
    assert found.tolist() == [1, 0, 0, 0]


def test_what_no_number_holds_is_infinite():
    assert text.perplexity([-1e6], [1]) == np.inf
    assert np.isnan(text.perplexity([-1.0], [0]))


def test_confusion_counts_targets_by_row():
    assert classes.confusion(PREDICTED, TARGETS, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    mask = np.array([True, False, True, True, True])
    assert classes.confusion(PREDICTED, TARGETS, 3, mask)[0].tolist() == [1, 0, 0]


def test_macro_f1_by_hand_and_without_classes_that_do_not_occur():
    by_hand = (2 * 1 / 4 + 2 * 2 / 5 + 0) / 3
    assert classes.macro_f1(classes.confusion(PREDICTED, TARGETS, 3)) == pytest.approx(by_hand)
    assert classes.macro_f1(classes.confusion(PREDICTED, TARGETS, 50)) == pytest.approx(by_hand)


def test_mean_log_likelihood_normalises_over_the_choices():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
    scores = np.log(probabilities) + [[-3.0], [5000.0]]  # a constant an item must not matter
    expected = (math.log(0.7) + math.log(0.25)) / 2
    assert classes.mean_log_likelihood(scores, np.array([0, 2])) == pytest.approx(expected)


def test_calibration_error_by_hand():
    scores = np.log([[0.9, 0.1], [0.92, 0.08], [0.3, 0.7], [0.65, 0.35]])
    targets = np.array([0, 1, 1, 0])
    # Bins (0.8, 0.9], (0.9, 1]: one item each; (0.6, 0.7]: two, both right.
    expected = (abs(1 - 0.9) + abs(0 - 0.92) + abs(2 - 0.7 - 0.65)) / 4
    assert classes.expected_calibration_error(scores, targets) == pytest.approx(expected)
    mask = np.array([False, True, False, False])
    assert classes.expected_calibration_error(scores, targets, mask) == pytest.approx(0.92)


@pytest.mark.parametrize(
    "successes, n, low, high",
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_against_published_values(successes, n, low, high):
    estimate = metrics.wilson(successes, n)
    assert estimate.value == successes / n
    assert estimate[1:] == pytest.approx((low, high), abs=1e-4)


def test_bootstrap_agrees_with_drawing_items_one_by_one():
    values = np.random.default_rng(1).choice([0, 1 / 3, 2 / 3, 1], size=80)
    draws = np.random.default_rng(2).choice(values, size=(10_000, 80)).mean(axis=1)
    estimate = metrics.bootstrap(values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate[1:] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.005)
    assert estimate == metrics.bootstrap(values[::-1])  # the same data, the same interval


def test_interval_of_several_seeds_covers_the_truth_and_counts_an_item_once():
    """Seeds that share hard items are no new evidence: coverage stays near 95 %."""
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(200):
        difficulty = rng.beta(0.8, 0.3, size=100)  # mean 8/11
        found = metrics.interval(rng.random((5, 100)) < difficulty)
        covered += found.low <= 8 / 11 <= found.high
        widths.append(found.high - found.low)
    assert 180 <= covered <= 199
    assert np.mean(widths) > 1.5 * 2 * 1.96 * math.sqrt(8 / 11 * 3 / 11 / 500)


def test_interval_is_wilsons_where_items_are_plainly_right_or_wrong():
    one = np.arange(10)[None] < 8
    assert metrics.interval(one) == metrics.wilson(8, 10)
    assert metrics.interval(np.repeat(one, 3, axis=0)) == metrics.wilson(8, 10)


def test_paired_difference_changes_sign_and_cancels_shared_difficulty():
    rng = np.random.default_rng(3)
    a = rng.random((3, 400)) < 0.8
    b = a.copy()
    b[:, :20] = False
    ab, ba = metrics.paired_difference(a, b), metrics.paired_difference(b, a)
    assert ab.value == pytest.approx(a.mean() - b.mean())
    assert (ab.value, ab.low, ab.high) == pytest.approx((-ba.value, -ba.high, -ba.low), abs=3e-3)
    assert 0 < ab.low  # the pairs tell them apart, the two intervals alone do not
    assert metrics.interval(a).low < metrics.interval(b).high
    assert metrics.paired_difference(a, a) == (0, 0, 0)


def test_spread_needs_two_runs():
    assert metrics.spread([0.5, 0.7]) == pytest.approx(0.2 / math.sqrt(2))
    assert math.isnan(metrics.spread([0.5]))
