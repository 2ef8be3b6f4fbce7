"""Every measure against its reference library, on random and on degenerate input."""

import math

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer
from sklearn import metrics as sk

from lmlite.errors import UserError
from lmlite.metrics import classes, code, mcnemar, text
from lmlite.metrics.kinds import Choices, Likelihoods, Texts
from lmlite.metrics.measures import MEASURES, named

RANDOM = np.random.default_rng(0)
CASES = {
    "random": (RANDOM.integers(0, 4, 60), RANDOM.integers(0, 4, 60)),
    "one class predicted": (np.array([0, 1, 2, 1]), np.array([1, 1, 1, 1])),
    "one class there": (np.array([2, 2, 2]), np.array([0, 2, 2])),
    "a class never predicted": (np.array([0, 1, 2, 2]), np.array([0, 1, 1, 1])),
    "all right": (np.array([0, 1, 2]), np.array([0, 1, 2])),
    "one item": (np.array([1]), np.array([0])),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets, predicted", CASES.values(), ids=CASES)
def test_class_measures_equal_scikit_learn(targets, predicted):
    scores = [np.eye(5)[p] for p in predicted]  # a fifth class that never occurs
    answers = Choices(predicted, targets, scores)
    macro = dict(average="macro", zero_division=0)
    expected = {
        "accuracy": sk.accuracy_score(targets, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, predicted),
        "macro_f1": sk.f1_score(targets, predicted, **macro),
        "micro_f1": sk.f1_score(targets, predicted, average="micro"),
        "precision": sk.precision_score(targets, predicted, **macro),
        "recall": sk.recall_score(targets, predicted, **macro),
        "matthews": sk.matthews_corrcoef(targets, predicted),
    }
    for name, value in expected.items():
        assert MEASURES[name].value(answers) == pytest.approx(value, abs=1e-12), name


def test_normalised_accuracy_is_of_log_probabilities_alone():
    answers = Choices(np.array([0]), np.array([1]), [np.array([-2.0, -3.0])], [("a", "bcde")])
    assert MEASURES["acc_norm"].value(answers) == 1.0 and MEASURES["accuracy"].value(answers) == 0.0
    calibrated = answers._replace(texts=())
    assert math.isnan(MEASURES["acc_norm"].value(calibrated))
    assert MEASURES["acc_norm"].items(calibrated) == [None]


@pytest.mark.filterwarnings("ignore")
def test_binary_f1_equals_scikit_learn():
    for _ in range(20):
        targets, predicted = RANDOM.integers(0, 2, (2, RANDOM.integers(1, 6)))
        answers = Choices(predicted, targets, [np.eye(2)[p] for p in predicted])
        expected = sk.f1_score(targets, predicted, zero_division=0)
        assert MEASURES["binary_f1"].value(answers) == pytest.approx(expected)


def test_no_items_give_nan():
    empty = np.zeros((3, 3), int)
    for name in ("precision", "recall", "balanced_accuracy", "macro_f1", "micro_f1", "matthews"):
        assert math.isnan(getattr(classes, name)(empty)), name


WRITTEN = ["the cat sat on a mat", "", "Ein Hund läuft .", "full of sound and fury", "你好 世界"]
WANTED = ["a cat sat on the mat", "nothing", "Ein Hund läuft.", "", "你好世界"]


def test_rouge_equals_the_package():
    for kind in ("rouge1", "rouge2", "rougeL"):
        scorer = rouge_scorer.RougeScorer([kind], use_stemmer=True)
        expected = [
            scorer.score(t, p)[kind].fmeasure for p, t in zip(WRITTEN, WANTED, strict=True)
        ]
        np.testing.assert_allclose(text.rouge(kind, WRITTEN, WANTED), expected)


def test_bleu_and_chrf_equal_sacrebleu():
    english = WRITTEN[:4], WANTED[:4]
    answers = Texts(*english)
    bleu = sacrebleu.corpus_bleu(english[0], [english[1]]).score
    chrf = sacrebleu.corpus_chrf(english[0], [english[1]]).score
    assert MEASURES["bleu"].value(answers) == pytest.approx(bleu)
    assert MEASURES["chrf"].value(answers) == pytest.approx(chrf)
    chinese = sacrebleu.corpus_bleu(WRITTEN[4:], [WANTED[4:]], tokenize="zh").score
    assert text.corpus_score("bleu_zh", WRITTEN[4:], WANTED[4:]) == pytest.approx(chinese)
    plus = sacrebleu.corpus_chrf(english[0], [english[1]], word_order=2).score
    assert MEASURES["chrf++"].value(answers) == pytest.approx(plus)
    ter = sacrebleu.corpus_ter(english[0], [english[1]]).score
    assert MEASURES["ter"].value(answers) == pytest.approx(ter)


def drawn_texts(n: int) -> Texts:
    words = np.array("a cat dog sat on the mat and ran far away from home".split())
    wanted = [list(RANDOM.choice(words, RANDOM.integers(4, 30))) for _ in range(n)]
    written = [[w if RANDOM.random() < 0.8 else "x" for w in some] for some in wanted]
    return Texts(*([" ".join(some) for some in texts] for texts in (written, wanted)))


@pytest.mark.parametrize("name", ["chrf", "bleu", "ter", "bits_per_byte"])
def test_items_of_a_whole_have_its_value_as_mean_and_its_spread(name):
    """The standard error from the items against values of other draws of as many texts."""

    def draw():
        answers = drawn_texts(60)
        if MEASURES[name].of is Texts:
            return answers
        sizes = np.array([len(t) for t in answers.targets])
        return Likelihoods(-sizes * RANDOM.normal(0.7, 0.05, 60), answers.targets)

    values, errors = [], []
    for _ in range(40):
        answers = draw()
        items = MEASURES[name].items(answers)
        values.append(MEASURES[name].value(answers))
        errors.append(items.std(ddof=1) / math.sqrt(len(items)))
        assert items.mean() == pytest.approx(values[-1])
    assert 0.7 < np.mean(errors) / np.std(values) < 1.4


def test_one_text_is_its_own_value():
    one = Texts(WRITTEN[:1], WANTED[:1])
    for name in ("chrf", "bleu", "chrf++", "ter"):
        assert MEASURES[name].items(one) == pytest.approx([MEASURES[name].value(one)])


@pytest.mark.parametrize(
    "written, wanted, value",
    [
        ("The cat!", "a cat", 1.0),  # case, punctuation and articles aside
        ("red cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "an", 1.0),  # both empty then
        ("cat cat", "cat", 2 / 3),
    ],
)
def test_token_f1_by_hand(written, wanted, value):
    assert text.token_f1([written], [wanted])[0] == pytest.approx(value)


def test_likelihoods_by_hand_and_bits_per_byte_as_a_mean_of_items():
    texts = ["ab cd", "é"]  # 5 and 2 bytes, 2 words and 1
    logprobs = np.array([-7.0, -1.0])
    answers = Likelihoods(logprobs, texts)
    bits = 8 / math.log(2) / 7
    assert MEASURES["bits_per_byte"].value(answers) == pytest.approx(bits)
    assert MEASURES["byte_perplexity"].value(answers) == pytest.approx(2**bits)
    assert MEASURES["word_perplexity"].value(answers) == pytest.approx(math.exp(8 / 3))
    spaced = answers._replace(spaces=[1, 2])  # scored too
    assert MEASURES["bits_per_byte"].value(spaced) == pytest.approx(bits * 7 / 10)
    assert np.mean(MEASURES["bits_per_byte"].items(spaced)) == pytest.approx(bits * 7 / 10)
    assert MEASURES["byte_perplexity"].value(spaced) == pytest.approx(2 ** (bits * 7 / 10))


def test_the_likest_of_several_right_answers_counts():
    further = [("the cat", "cat"), (), ("z",)]
    answers = Texts(["a cat", "B!", "x"], ["dog", "b", "y"], further=further)
    assert MEASURES["f1"].items(answers).tolist() == [1, 1, 0]
    assert MEASURES["exact_match"].items(answers).tolist() == [0, 0, 0]
    lower = answers._replace(form=lambda t: t.lower().strip("!"))
    assert MEASURES["exact_match"].items(lower).tolist() == [0, 1, 0]
    references = [list(answers.targets), ["the cat", None, "z"], ["cat", None, None]]
    for name, metric in {"bleu": sacrebleu.BLEU(), "chrf": sacrebleu.CHRF()}.items():
        expected = metric.corpus_score(answers.written, references).score
        assert MEASURES[name].value(answers) == pytest.approx(expected)
        assert np.mean(MEASURES[name].items(answers)) == pytest.approx(expected)


def test_options_of_exact_match_are_its_own():
    answers = Texts(["THE CAT SAT ON MATS."], ["the cat sat on mats"], form=str.lower)
    plain = answers._replace(form=str)
    for name in ("bleu", "chrf", "ter", "f1"):
        assert MEASURES[name].value(answers) == MEASURES[name].value(plain)


@pytest.mark.parametrize("samples, right, k", [(5, 2, 1), (10, 3, 5), (4, 0, 2), (4, 3, 2)])
def test_pass_at_k_is_the_chance_by_counting(samples, right, k):
    expected = 1 - math.comb(samples - right, k) / math.comb(samples, k)
    assert code.pass_at_k(samples, right, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    "program, passes",
    [
        ("def f(x): return x + 1\nassert f(1) == 2", True),
        ("assert False", False),
        ("def f(:", False),
        ("while True: pass", False),
        ("x = bytearray(4 * 2**30)", False),
        ("open('big', 'wb').write(b'0' * 2**22)", False),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", False),
        ("import socket\ntry:\n socket.socket()\nexcept OSError:\n pass", True),
    ],
)
def test_programs_run_within_limits(program, passes):
    assert code.passes(program, seconds=3) is passes


def test_mcnemar_is_the_exact_binomial_test():
    a = np.array([1] * 10 + [0] * 2 + [1] * 5, bool)
    b = np.array([0] * 10 + [1] * 2 + [1] * 5, bool)
    expected = 2 * sum(math.comb(12, i) for i in range(3)) / 2**12
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(expected)
    assert mcnemar(a, a) == 1.0


def test_a_measure_that_does_not_suit_the_task_is_named():
    with pytest.raises(UserError, match="task.metrics names 'bleu'; .*accuracy"):
        named(("bleu",), Choices)
    with pytest.raises(UserError, match="task.metrics names 'nonsense'"):
        named(("nonsense",), Texts)
