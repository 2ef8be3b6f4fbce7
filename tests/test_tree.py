"""Partition labels: every leaf gets the first matching rule's label, or an error says so."""

import numpy as np
import pytest

from lmlite import tree
from lmlite.errors import UserError

PARAMS = {"a": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}, "b": {"kernel": np.ones(4)}}


def test_first_match_wins_and_must_be_full():
    labels = tree.label(PARAMS, [("a/.*", "x"), (".*/kernel", "y")])
    assert labels == {"a/kernel": "x", "a/bias": "x", "b/kernel": "y"}


def test_uncovered_leaf_is_refused():
    with pytest.raises(UserError, match="a/bias.*matches no partition rule"):
        tree.label(PARAMS, [(".*/kernel", "x")])


def test_rule_that_decides_nothing_is_refused():
    with pytest.raises(UserError, match="'c/.*' -> 'x' matches no parameter"):
        tree.label(PARAMS, [("c/.*", "x"), (".*", "frozen")])
    with pytest.raises(UserError, match="'a/kernel' -> 'late'"):
        tree.label(PARAMS, [(".*", "frozen"), ("a/kernel", "late")])


def test_split_and_merge_are_inverse():
    labels = tree.label(PARAMS, [(".*/bias", "x"), (".*", "frozen")])
    train, frozen = tree.split(PARAMS, labels)
    assert tree.flatten(train).keys() == {"a/bias"}
    assert tree.flatten(frozen).keys() == {"a/kernel", "b/kernel"}
    assert tree.flatten(tree.merge(frozen, train)).keys() == tree.flatten(PARAMS).keys()
    assert tree.labels_of(train, labels) == {"a": {"bias": "x"}}
    assert tree.count(train) == 3 and tree.size_bytes(train) == 24
