"""Tuning arms of one form fitted, and asked, together: in one compiled step, the model shared."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lmlite import tree
from lmlite.arms.arm import Cost, Labelled, Log
from lmlite.arms.attempt import attempt
from lmlite.arms.choices import ModelPredictor
from lmlite.arms.common_scores import CommonScores
from lmlite.arms.tuned import Start, Tuned
from lmlite.data.task import Task
from lmlite.errors import UserError
from lmlite.joint import Member, answering, fit_jointly
from lmlite.models.lm import LM
from lmlite.models.network import Network
from lmlite.models.trees import TREE_TOKENS
from lmlite.run import Run, Trained
from lmlite.runtime import Meter
from lmlite.stacking import shared


class Fit(NamedTuple):
    """One fit: an arm, its seed, and where it reports."""

    arm: Tuned
    seed: int
    log: Log


class _Ready(NamedTuple):
    start: Start
    run: Run


def fit_together(
    jobs: Sequence[Fit], lm: LM, task: Task, data: Labelled
) -> Iterator[ModelPredictor | UserError]:
    """What `Tuned.fit` gives each job alone, in order, to float32 rounding; or why it has none.

    The jobs' arms have one `form`. A cost is the job's equal share of what all took (its `together`
    says of how many). Arms whose own weights outweigh the shared ones, as in full tuning, are
    fitted in turn: no product would be shared. So are arms that find no memory together, and those
    of a base with an adapter, whose leaves have other names beside it. Predictors
    are made one at a time: each may be a whole model. The first that scores examples has them
    scored for all, each by what it learned; the others, asked the same, have their share of the
    cost (`CommonScores`). Texts are written by each alone.
    """
    began, meter = time.perf_counter(), Meter()
    ready = [attempt(_ready, job, lm, task, data, meter) for job in jobs]
    able = [a for a, one in enumerate(ready) if not isinstance(one, UserError)]
    fitted = attempt(_fit, [(jobs[a], ready[a]) for a in able], lm, task, meter)
    if fitted is None or isinstance(fitted, UserError):  # each alone says best what it lacks
        for job in jobs:
            yield attempt(job.arm.fit, lm, task, data, job.seed, job.log)
        return
    trained, scores = fitted
    found = dict(enumerate(ready)) | dict(zip(able, trained, strict=True))
    places = {a: i for i, a in enumerate(a for a in able if isinstance(found[a], Trained))}
    seconds = time.perf_counter() - began + meter.owed - meter.compile_seconds
    for a, job in enumerate(jobs):
        if isinstance(found[a], UserError):
            yield found[a]
            continue
        cost = Cost(
            examples=len(data.all),
            **job.arm.size(lm, ready[a].start, found[a]),
            train_seconds=seconds / len(able),
            train_flops=meter.flops / len(able),
            train_bytes=meter.bytes / len(able),
            compile_seconds=meter.compile_seconds / len(able),
            together=len(able),
        )
        alone = attempt(job.arm.predictor, lm, task, ready[a].start, found[a], cost)
        yield _asked_together(alone, scores, places[a], len(places))


def _ready(job: Fit, lm: LM, task: Task, data: Labelled, meter: Meter) -> _Ready:
    arm, seed, log = job
    start = arm.start(lm, task, data, seed, meter)
    return _Ready(start, Run(*start, seed, meter, log.states))


def _asked_together(
    alone: ModelPredictor | UserError, scores: CommonScores, place: int, arms: int
) -> ModelPredictor | UserError:
    """The predictor with the scores that it has in common with others, where there are others.

    A tree of texts is smaller by their number, since the memory holds one for each.
    """
    if arms == 1 or isinstance(alone, UserError):
        return alone
    scorer = functools.partial(scores.of, place)
    return dataclasses.replace(alone, scorer=scorer, tree_tokens=max(1, TREE_TOKENS // arms))


def _light(runs: Sequence[Run]) -> bool:
    """Whether what is each arm's own, in all, is no larger than what they share."""
    common, own = shared([run.frozen for run in runs])
    mine = sum(tree.size_bytes([run.train, rest]) for run, rest in zip(runs, own, strict=True))
    return mine <= tree.size_bytes(common)


def _fit(pairs: Sequence[tuple[Fit, _Ready]], lm: LM, task: Task, meter: Meter):
    """What each has learned or why nothing, and the scores of those that have; None where they
    are better fitted in turn.
    """
    if len(pairs) < 2 or lm.hooks or not _light([ready.run for _, ready in pairs]):
        return None
    methods = [job.arm.method for job, _ in pairs]
    first = pairs[0][1]
    method, factors = methods[0], [{} for _ in methods]
    if any(other != method for other in methods):
        method, factors = method.stacked(methods, list(tree.flatten(first.run.train)))
    hooks = lm.hooks + method.hooks()
    network: Network = dataclasses.replace(first.start.adapted.network, hooks=hooks)
    members = [
        Member(ready.run, factor, job.log.directory, job.log.scalars)
        for (job, ready), factor in zip(pairs, factors, strict=True)
    ]
    trained = fit_jointly(network, members, meter)
    return trained, CommonScores(answering(network, members, trained, task.asks_greedy))
