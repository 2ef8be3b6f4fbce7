"""Quality of written text against a reference, and of how likely a model finds a text.

n items. Numbers are in 0 .. 1, or 0 .. 100 for BLEU and chrF as their package gives them.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial

import numpy as np

from lmlite.metrics.jackknife import pseudo_values


def exact_match(predictions: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """float[n]: 1 where the texts are equal."""
    return np.array([float(p == t) for p, t in zip(predictions, targets, strict=True)])


def token_f1(predictions: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """float[n]: F1 of the words that both have (Rajpurkar et al. 2016, SQuAD's own script)."""
    return np.array([_f1(p, t) for p, t in zip(predictions, targets, strict=True)])


def _f1(prediction: str, target: str) -> float:
    found, wanted = _words(prediction), _words(target)
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def _words(text: str) -> list[str]:
    """In lower case, without punctuation and articles."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def rouge(kind: str, predictions: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """float[n]: F1 of 'rouge1', 'rouge2' or 'rougeL', stemmed, by the package rouge_score."""
    scorer = _rouge(kind)
    pairs = zip(predictions, targets, strict=True)
    return np.array([scorer.score(t, p)[kind].fmeasure for p, t in pairs])


@cache
def _rouge(kind: str):
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    return RougeScorer([kind], use_stemmer=True)


def corpus_score(name: str, predictions: Sequence[str], *targets: Sequence[str | None]) -> float:
    """A score of all texts together, 0 .. 100, by sacrebleu: 'chrf' and 'chrf++' (Popovic 2015,
    2017), 'bleu' (Papineni et al. 2002), 'bleu_zh', where each Chinese character is a word, 'ter'
    (Snover et al. 2006; it may pass 100).

    targets: of each list one reference a text, None where it has no further one.
    """
    return _sacrebleu(name).corpus_score(list(predictions), list(map(list, targets))).score


def corpus_items(
    name: str, predictions: Sequence[str], *targets: Sequence[str | None]
) -> np.ndarray:
    """float[n], whose mean is `corpus_score` and whose variance is that of its jackknife.

    Scores are functions of counts that add up, so none is counted twice.
    """
    metric = _sacrebleu(name)
    references = list(map(list, targets))
    counts = np.array(metric._extract_corpus_statistics(list(predictions), references))
    every = counts.sum(0)

    def score(some: np.ndarray) -> float:
        return metric._compute_score_from_stats(some.tolist()).score

    return pseudo_values(score(every), np.array([score(every - own) for own in counts]))


def _sacrebleu(name: str):
    from sacrebleu import BLEU, CHRF, TER  # slow to import

    made = {
        "chrf": CHRF,
        "chrf++": partial(CHRF, word_order=2),
        "bleu": BLEU,
        "bleu_zh": partial(BLEU, tokenize="zh"),
        "ter": TER,
    }
    return made[name]()


def perplexity(logprobs: Sequence[float], sizes: Sequence[int]) -> float:
    """exp of the negative log-probabilities (nats) of all texts over their sizes; NaN over none."""
    size = np.sum(sizes)
    with np.errstate(over="ignore"):  # of one word, where a language parts none
        return float(np.exp(-np.sum(logprobs) / size)) if size else float("nan")
