"""Quality of written text against a reference, and of how likely a model finds a text.

n items. Numbers are in 0 .. 1, or 0 .. 100 for BLEU and chrF as their package gives them.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np


def exact_match(predictions: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """float[n]: 1 where the texts are equal, white space at either end aside."""
    pairs = zip(predictions, targets, strict=True)
    return np.array([float(p.strip() == t.strip()) for p, t in pairs])


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


def sentence_chrf(predictions: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """float[n] in 0 .. 100: chrF of each text (Popovic 2015), by sacrebleu."""
    from sacrebleu import sentence_chrf as one

    pairs = zip(predictions, targets, strict=True)
    return np.array([one(p, [t]).score for p, t in pairs])


def corpus_chrf(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """chrF of all texts together, 0 .. 100, by sacrebleu."""
    from sacrebleu import corpus_chrf as all_of

    return all_of(list(predictions), [list(targets)]).score


def corpus_bleu(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """BLEU of all texts together, 0 .. 100, by sacrebleu; Chinese and Japanese by characters."""
    from sacrebleu import corpus_bleu as all_of

    tokenize = "zh" if any(re.search(r"[\u4e00-\u9fff]", t) for t in targets) else "13a"
    return all_of(list(predictions), [list(targets)], tokenize=tokenize).score


def bits_per_byte(logprobs: Sequence[float], texts: Sequence[str]) -> float:
    """All log-probabilities (nats) over all bytes of the texts, in bits."""
    return -float(np.sum(logprobs)) / math.log(2) / sum(len(t.encode()) for t in texts)


def byte_perplexity(logprobs: Sequence[float], texts: Sequence[str]) -> float:
    """2 to the bits per byte."""
    return 2.0 ** bits_per_byte(logprobs, texts)


def word_perplexity(logprobs: Sequence[float], texts: Sequence[str]) -> float:
    """exp of the mean negative log-probability a word; words are what white space separates."""
    words = sum(len(re.split(r"\s+", text)) for text in texts)
    return math.exp(-float(np.sum(logprobs)) / words)
