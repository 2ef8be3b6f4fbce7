"""In-context learning as an arm: fitting is choosing demonstrations and prefilling them once."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from lmlite.arms.arm import Cost, Labelled, Log
from lmlite.arms.choices import ModelPredictor
from lmlite.arms.constrained import ConstrainedPredictor
from lmlite.arms.demonstrations import CHOOSERS, ORDERS, Nearest, Same, arranged, chosen
from lmlite.arms.items import encode_examples
from lmlite.arms.worded import Worded, found_words, worded_data
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.encode import encode_pairs, shared_prefix
from lmlite.icl.readings import COMPARED, check
from lmlite.icl.retrieve import embedded, encoder
from lmlite.icl.score import prefill
from lmlite.models.lm import LM
from lmlite.models.trees import TREE_TOKENS
from lmlite.runtime import Meter
from lmlite.tree import size_bytes

LABEL_WORDS = ("given", "found")
DIRECTIONS = ("direct", "channel", "constrained")
AS_TASK = -1  # shots
_QUERIES = 64  # that show where what all prompts share ends
DRAWS = 1000  # at most: a run's number is its draw plus this times its order


@dataclasses.dataclass(frozen=True)
class InContext:
    """k-shot prompting: `shots` demonstrations from the labelled examples (Brown et al. 2020).

    shots: -1 for as many as the task says, chosen as it says. choose: 'balanced' over the classes
    or 'random', drawn by the seed; the 'first' of all training rows; 'diverse' (k-means) or
    'nearest' to each query (Liu et al. 2021, arXiv:2101.06804) by the embeddings of `retriever`,
    with `diversity` (MMR) above 0. order: 'drawn', 'curriculum' (what the model finds likely
    first), 'best' (of `orders` ones on the development examples), 'similar' (the nearest last).
    orders: of one draw that are run, or tried. readings: of the same scores, see
    `lmlite.icl.readings`. direction: 'direct', 'channel' (Min et al. 2021, arXiv:2108.04106,
    p(prompt | answer)) or 'constrained' (decoded greedily, where only what leads to a choice is
    allowed). label_words: 'given', the task's choices, or 'found' by all labelled examples, see
    `lmlite.icl.label_words`. tree_tokens: bounds the memory of answering.

    With choose='nearest' the readings 'contextual' and 'domain' are left out: no prompt without
    content stands behind the demonstrations of every query.
    """

    family: ClassVar[str] = "in-context"
    shots: int = 0
    readings: tuple[str, ...] = ("contextual", "batch")
    choose: str = "balanced"
    order: str = "drawn"
    orders: int = 1
    direction: str = "direct"
    label_words: str = "given"
    retriever: str = "package:all-minilm-l6-v2"
    diversity: float = 0.0
    tree_tokens: int = TREE_TOKENS

    def __post_init__(self):
        check(self.readings)
        known = {
            "choose": CHOOSERS,
            "order": ORDERS,
            "direction": DIRECTIONS,
            "label_words": LABEL_WORDS,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise UserError(f"{name}={getattr(self, name)!r} is unknown; known: {values}")
        if self.order == "similar" and self.choose != "nearest":
            raise UserError("order='similar' is for choose='nearest'; choose another order")
        if self.choose == "nearest" and (self.order in ("best", "curriculum") or self.orders > 1):
            raise UserError(
                f"order={self.order!r} and orders={self.orders} need the same demonstrations for "
                "all queries, and choose='nearest' has others for each; set order='similar', "
                "orders=1"
            )
        if self.choose == "nearest" and self.direction == "channel":
            raise UserError("direction='channel' shows the same to all queries; choose another way")
        if self.direction != "direct" and self.readings:
            raise UserError(f"direction={self.direction!r} has no other readings; set readings=()")
        if self.orders < 1 or self.shots < AS_TASK or self.tree_tokens < 1:
            raise UserError(
                f"shots={self.shots}, orders={self.orders}, tree_tokens={self.tree_tokens} must be "
                "at least 0 (or -1, as the task says), 1 and 1"
            )

    def runs(self, seeds, draws):
        """One run where nothing is drawn, else one a draw, and one for each order of it."""
        fixed = self.choose in ("first", "nearest") or not self.shots
        orders = self.orders if self.order == "drawn" and self.shots else 1
        return [d + DRAWS * o for d in (draws[:1] if fixed else draws) for o in range(orders)]

    def form(self):
        """Nothing to train together."""
        return None

    def details(self, seed: int) -> Mapping[str, int]:
        """The draw and the order that a run stands for."""
        return {"draw": seed % DRAWS, "order": seed // DRAWS}

    def fit(self, lm: LM, task: Task, data: Labelled, seed: int, log: Log):
        """Chooses and prefills the demonstrations."""
        if self.shots == AS_TASK:
            own = dataclasses.replace(self, shots=task.shots, choose=task.choose)
            task = dataclasses.replace(task, train=task.shown or task.train)
            data = Labelled(task.shown, ()) if task.shown else data
            return own.fit(lm, task, data, seed, log)
        if self.shots and self.choose in ("diverse", "nearest"):
            encoder(self.retriever)  # loading a model is no part of any arm's time
        start, meter = time.perf_counter(), Meter()
        pool = self._pool(task, data)
        if self.shots > len(pool):
            raise UserError(f"shots={self.shots} of {len(pool)} labelled examples; raise examples")
        words = ()
        if self.label_words == "found":
            words = found_words(lm, task, data.all, meter)
            data = worded_data(data, words)
        prompts, labels = self._prompts(lm, task, data, seed, meter)
        labels = len(data.all) if words else labels
        ids, prefix = (), None
        before = isinstance(prompts, Same) and (prompts.demonstrations or task.description)
        if before and lm.config.causal and not lm.config.cross:  # else all tokens see what follows
            # Where the context's tokens end depends on what follows it, so queries decide: many,
            # as a few may begin alike, and one that does not share the prefix reads it all anew.
            queries = (data.all + task.test)[:_QUERIES]
            contexts = self._contexts(lm, task, prompts, queries)
            ids, prefix = _prefilled(lm, contexts, meter)
        cost = Cost(
            examples=labels,
            trainable_params=0,
            stored_bytes=size_bytes(prefix) if isinstance(prompts, Same) else prompts.stored_bytes,
            train_seconds=time.perf_counter() - start - meter.compile_seconds if labels else 0.0,
            train_flops=meter.flops,
            train_bytes=meter.bytes,
            compile_seconds=meter.compile_seconds,
        )
        same = isinstance(prompts, Same)
        readings = tuple(name for name in self.readings if same or name not in COMPARED)
        predictor = _PREDICTORS[self.direction](
            lm, task, cost, prompts, ids, prefix, readings, tree_tokens=self.tree_tokens
        )
        return Worded(predictor, words) if words else predictor

    def _pool(self, task: Task, data: Labelled) -> tuple[Example, ...]:
        """What demonstrations are taken from: not what judges their order."""
        if self.choose == "first":  # as lm_eval has it, whichever are labelled
            return task.train[: self.shots]
        return data.train if self.order == "best" else data.all

    def _contexts(self, lm: LM, task: Task, prompts: Same, queries: Sequence[Example]):
        """The tokens that stand before what is scored."""
        if self.direction == "channel":
            given = _given(task, prompts, [choice for e in queries for choice in e.choices])
            return lm.text.encode_batch(list(dict.fromkeys(given)))
        return [e.context for e in encode_examples(lm, task, queries, prompts(queries))]

    def _prompts(self, lm, task, data, seed, meter):
        """What makes prompts of examples, and how many labels that took."""
        draw, order = seed % DRAWS, seed // DRAWS
        if self.choose == "nearest" and self.shots:
            near = (self.shots, self.retriever, self.diversity, self.order)
            known = embedded(self.retriever, [e.prompt for e in data.all], meter)
            return Nearest(lm, task, data.all, *near, known), len(data.all)
        pool = self._pool(task, data)
        shown = chosen(self.choose, pool, self.shots, draw, self.retriever, meter)

        def score(demonstrations: Sequence[Example], asked: Sequence[Example]) -> tuple:
            return _quality(lm, task, demonstrations, asked, meter)

        shown, asked = arranged(self.order, shown, order, self.orders, data.dev, draw, score)
        return Same(lm, task, shown), len({e.id for e in (*shown, *asked)})


def _prefilled(lm: LM, contexts: Sequence[list[int]], meter: Meter):
    """The tokens that all contexts begin with, and their keys and values."""
    if not contexts:
        return (), None
    shared = tuple(contexts[0][: shared_prefix(contexts)])
    return shared, prefill(lm.network, lm.params, shared, lm.config.max_positions, meter)


def _given(task: Task, prompts: Same, choices: Sequence[str]) -> list[str]:
    """What stands before a query's prompt in the noisy channel, for each choice."""
    shown = "".join(
        f"{e.answer}\n{e.prompt}{task.fewshot_delimiter}" for e in prompts.demonstrations
    )
    return [f"{task.description}{shown}{choice}\n" for choice in choices]


def _quality(lm, task, demonstrations, asked: Sequence[Example], meter: Meter):
    """(accuracy, mean log-probability of the right answers), among the choices where there are
    some; of texts the accuracy is 0.
    """
    nothing = Cost(0, 0, 0, 0.0, 0.0, 0.0, 0.0)
    predictor = ModelPredictor(lm, task, nothing, Same(lm, task, demonstrations))
    scores = predictor.predict(asked, meter)[""]
    pairs = list(zip(scores, asked, strict=True))
    right = [bool(e.choices) and int(np.argmax(s)) == e.target for s, e in pairs]
    likely = [s[e.target] - np.logaddexp.reduce(s) if e.choices else s[0] for s, e in pairs]
    return float(np.mean(right)), float(np.mean(likely))


@dataclasses.dataclass(frozen=True)
class ChannelPredictor(ModelPredictor):
    """Scores a choice by how likely it makes the prompt: the noisy channel of Min et al. 2021.

    What stands between the two, the line break, is part of what is given: only the prompt's own
    tokens count. Both are encoded by themselves, as in the paper's code.
    """

    of_texts: ClassVar[bool] = False

    def predict(self, examples: Sequence[Example], meter: Meter):
        """See `Predictor`."""
        if not examples[0].choices:
            raise UserError("direction='channel' is for tasks with choices; take 'direct'")
        if self.task.chat:
            raise UserError(
                "direction='channel' gives the prompt after its answer, which no chat has; set "
                "task.chat=false, or take 'direct'"
            )
        if empty := [e.id for e in examples if not e.prompt.strip()]:
            raise UserError(
                f"direction='channel' scores the prompt, and that of {empty[0]} is empty; leave "
                "the row out, or take 'direct'"
            )
        pairs = [(e, choice) for e in examples for choice in e.choices]
        given = _given(self.task, self.prompts, [choice for _, choice in pairs])
        encoded = encode_pairs(self.lm.text, given, [[e.prompt] for e, _ in pairs])
        scores = iter(self.scores(encoded, meter))
        return {"": [np.concatenate([next(scores) for _ in e.choices]) for e in examples]}


_PREDICTORS = {
    "direct": ModelPredictor,
    "channel": ChannelPredictor,
    "constrained": ConstrainedPredictor,
}
