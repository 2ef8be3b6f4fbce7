"""Decoding among the choices: one packed pass against a walk of the trie, a step a forward pass."""

import dataclasses

import jax
import numpy as np
import pytest
from test_in_context import DATA, TASK, fitted
from tiny_lm import tiny_lm

from lmlite.arms import Log
from lmlite.arms.in_context import InContext
from lmlite.arms.items import planned
from lmlite.data.task import Example
from lmlite.errors import UserError
from lmlite.icl.constrained import decoded, paths
from lmlite.runtime import Meter

# Of unequal lengths, with beginnings in common; the first begins two others.
CHOICES = ("no", "not", "nothing", "yes", "yellow", "maybe")
TEST = tuple(Example(f"t{i}", f"{'abc'[i % 3]}{i}?", CHOICES, 0, "") for i in range(12))


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(layers=2)


@dataclasses.dataclass
class Walk:
    """A trie walked by the model's logits, all by itself."""

    lm: object
    prompt: list[int]
    ways: list[list[int]]
    ends: set[int]

    def __post_init__(self):
        starts = {tuple(w[:n]) for w in self.ways for n in range(len(w) + 1)}
        texts = [[*self.prompt, *start] for start in starts]
        ids = np.zeros((len(texts), 160), np.int32)
        mask = np.zeros((len(texts), 160), bool)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, True
        logp = np.asarray(jax.nn.log_softmax(self.lm.logits(ids, mask), -1), np.float64)
        at = {
            start: logp[r, len(t) - 1]
            for r, (start, t) in enumerate(zip(starts, texts, strict=True))
        }
        self.logp = at

    def allowed(self, node):
        """The next tokens that lead to a choice, and those that end one here."""
        goes = {
            w[len(node)] for w in self.ways if tuple(w[: len(node)]) == node and len(w) > len(node)
        }
        return goes, (self.ends - goes if list(node) in self.ways and goes else set())

    def greedy(self):
        node = ()
        while True:
            goes, ends = self.allowed(node)
            if not goes:
                return self.ways.index(list(node))
            token = max(goes | ends, key=lambda t: self.logp[node][t])
            if token in ends:
                return self.ways.index(list(node))
            node = (*node, token)

    def probability(self, way):
        total, node = 1.0, ()
        for token in [*way, None]:
            goes, ends = self.allowed(node)
            if not goes:
                return total
            p = {t: np.exp(self.logp[node][t]) for t in goes | ends}
            taken = ends if token is None else {token}
            total *= sum(p[t] for t in taken) / sum(p.values())
            node = (*node, token)
        return total


def walks(lm, predictor, examples):
    ends = {0, lm.text.encode(";")[0]}  # the model's end of text, and the task's delimiter
    for e, text in zip(examples, predictor.prompts(examples), strict=True):
        prompt = lm.text.encode(text)
        yield Walk(
            lm, prompt, [lm.text.encode(f"{text} {c}")[len(prompt) :] for c in e.choices], ends
        )


@pytest.mark.parametrize("shots", [0, 2])
def test_the_decoded_choice_and_the_probability_of_each(lm, shots):
    predictor = fitted(lm, shots=shots, direction="constrained")
    found = predictor.predict(TEST, Meter())[""]
    sums = fitted(lm, shots=shots).predict(TEST, Meter())[""]
    differs = 0
    for s, walk, total in zip(found, walks(lm, predictor, TEST), sums, strict=True):
        q = np.log([walk.probability(way) for way in walk.ways])
        assert np.exp(q).sum() == pytest.approx(1)
        chosen = walk.greedy()
        assert np.argmax(s) == chosen
        others = np.delete(np.arange(len(q)), chosen)
        assert s[chosen] == pytest.approx(q[chosen], abs=1e-4)
        moved = s[others] - q[others]
        np.testing.assert_allclose(moved, moved[0], atol=1e-4)
        assert moved[0] == pytest.approx(min(0, q[chosen] - q[others].max()), abs=1e-4)
        differs += chosen != np.argmax(total)
    assert differs  # whole choices are something else than steps


def test_choices_of_one_token_are_as_plain(lm):
    letters = tuple("nypqr")
    task = dataclasses.replace(TASK, target_delimiter="", train=(), test=())
    test = [dataclasses.replace(e, choices=letters) for e in TEST]
    meters = Meter(), Meter()
    found, plain = (
        fitted(lm, task, shots=0, direction=d).predict(test, m)[""]
        for d, m in zip(("constrained", "direct"), meters, strict=True)
    )
    for q, s in zip(found, plain, strict=True):
        np.testing.assert_allclose(q, s - np.logaddexp.reduce(s), atol=1e-5)
    assert meters[0].flops == meters[1].flops


def test_each_token_of_the_trie_is_computed_once(lm):
    predictor = fitted(lm, shots=0, direction="constrained")
    encoded = predictor._encoded(TEST[:1], Meter())
    trie = paths(encoded[0].choices, predictor._ends())
    walked = encoded[0]._replace(choices=[list(p) for p in trie])
    _, (item,) = planned(lm, [walked], predictor.tree_tokens)
    inner = {p[:-1] for p in trie if len(p) > 1}
    assert len(item.ids) == len(encoded[0].context) + len(inner)


def test_a_likely_beginning_wins_and_equal_tokens_go_to_the_first():
    choices = [[1, 2], [1, 3], [4]]
    sums = {(1,): np.log(0.6), (1, 2): np.log(0.3), (1, 3): np.log(0.3), (4,): np.log(0.4)}
    scores = decoded(choices, sums)
    assert np.argmax(scores) == 0  # though 4 is the likeliest choice
    assert scores[0] == pytest.approx(np.log(0.3)) and scores[2] - scores[1] == pytest.approx(
        np.log(4 / 3)
    )
    assert np.argmax(decoded([[1], [1]], {(1,): -1.0})) == 0


def test_bad_settings(lm):
    with pytest.raises(UserError, match="beginning of another, and no token ends it"):
        paths([[1], [1, 2]], [])
    with pytest.raises(UserError, match="direction='constrained' has no other readings"):
        InContext(direction="constrained")
    task = dataclasses.replace(TASK, train=(), test=())
    predictor = InContext(direction="constrained", readings=()).fit(lm, task, DATA, 0, Log())
    with pytest.raises(UserError, match="direction='constrained' is for tasks with choices"):
        predictor.predict([dataclasses.replace(TEST[0], choices=())], Meter())


def test_the_variant_is_an_arm():
    from configs import common
    from lmlite import arms

    arm = arms.build(common.prompted("16-shot-constrained").to_dict())
    assert (arm.shots, arm.direction, arm.readings) == (16, "constrained", ())
