"""Readings of the same choice scores: raw, length-normalised and calibrated.

n items, C choices.
"""

from collections.abc import Sequence

import numpy as np


def length_normalised(scores: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """Log-probability a token: scores [n, C] over the choices' token counts [C] or [n, C]."""
    return scores / np.asarray(tokens)


def contextual(scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Contextual calibration: scores [n, C] and those of content-free inputs [m, C] -> [n, C].

    Divides by the probabilities averaged over the content-free inputs, both normalised over the
    choices (Zhao et al. 2021, arXiv:2102.09690, section 5: W = diag(p_cf)^-1, b = 0).
    """
    prior = np.mean(np.exp(log_normalised(content_free)), axis=0)
    return log_normalised(log_normalised(scores) - np.log(prior))


def batch(scores: np.ndarray) -> np.ndarray:
    """Batch calibration: divides by the mean probability over the batch itself, [n, C] -> [n, C].

    Uses the unlabelled test inputs, so one item's reading depends on the others (Zhou et al. 2023,
    arXiv:2309.17249, equation 4).
    """
    prior = np.mean(np.exp(log_normalised(scores)), axis=0)
    return log_normalised(log_normalised(scores) - np.log(prior))


def log_normalised(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities over the choices alone: [n, C] -> [n, C], rows sum to 1 in probability."""
    top = scores.max(axis=-1, keepdims=True)
    return scores - top - np.log(np.sum(np.exp(scores - top), axis=-1, keepdims=True))


def pmi(scores: Sequence[np.ndarray], prior: Sequence[np.ndarray]) -> list[np.ndarray]:
    """log p(choice | prompt) - log p(choice | premise): what the prompt adds; [C] an item, both.

    Domain conditional PMI: Holtzman et al. 2021, arXiv:2104.08315, equation 2.
    """
    return [s - p for s, p in zip(scores, prior, strict=True)]
