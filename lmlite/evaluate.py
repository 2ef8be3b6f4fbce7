"""One evaluation for every arm: its predictor on the test items, as results and predictions.

n examples, C choices.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from lmlite.arms import Predictor
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.write import compared, expected, voted
from lmlite.metrics.code import passed
from lmlite.metrics.kinds import Answers, Choices, Likelihoods, Texts
from lmlite.metrics.measures import Measure, named
from lmlite.runtime import Meter, PeakMemory

Rows = list[dict]


def evaluate(
    predictor: Predictor,
    task: Task,
    examples: Sequence[Example],
    identity: dict,
    memory: PeakMemory,
) -> tuple[Rows, Rows]:
    """(results, predictions) of one fitted arm, a reading and a measure of the task at a time.

    identity: the row's `arm, task, split, seed` and what else should stand in every row. A
    reading's name is added to the arm's ('16-shot+batch') and to its family. A query's cost is the
    whole pass divided by its n examples, compilation excluded and what earlier, stopped passes
    left in `predictor.kept` included; FLOPs and bytes are not known of texts that are written.
    `fitted_together` arms shared a fit: the seconds, FLOPs and bytes of training are an equal
    share of it, `peak_bytes` is that of all of them; `evaluated_together` says the same of the
    evaluation. A prediction's `value` is what it counts for in the task's first measure. Where the
    arm has words of its own for the choices, a result names them all (`label_words`) and a
    prediction its own (`word`).
    """
    meter, start = Meter(), time.perf_counter()
    readings = _answers(predictor, task, examples, meter, identity["seed"])
    seconds = time.perf_counter() - start + meter.owed - meter.compile_seconds
    common = _costs(predictor, task, len(examples), seconds, meter) | {"peak_bytes": memory.read()}
    if predictor.words:
        common["label_words"] = list(predictor.words)
    measures = named(task.metrics, task.kind)
    results, predictions = [], []
    for reading, answers in readings.items():
        own = dict(identity)
        if reading:
            own["arm"] += f"+{reading}"
            own["family"] += ", calibrated"
        for name, measure in measures.items():
            value = measure.value(answers)
            value = value if np.isfinite(value) else None
            results.append({**own, "metric": name, "value": value, **common})
        first = measures[task.metrics[0]]
        predictions.extend(_predictions(own, examples, answers, first, predictor.words))
    return results, predictions


def _costs(predictor, task: Task, n: int, seconds: float, meter: Meter) -> dict:
    """What fitting and answering took; `seconds` and `meter` are of this pass alone."""
    cost, earlier = predictor.cost, predictor.kept.earlier
    flops, moved = meter.flops + earlier.flops, meter.bytes + earlier.bytes
    return {
        "n": n,
        "examples": cost.examples,
        "trainable_params": cost.trainable_params,
        "stored_bytes": cost.stored_bytes,
        "train_seconds": cost.train_seconds,
        "eval_seconds": seconds + earlier.seconds,
        "train_flops": cost.train_flops,
        "train_bytes": cost.train_bytes,
        "flops_per_query": None if task.kind is Texts else flops / n,
        "bytes_per_query": None if task.kind is Texts else moved / n,
        "fitted_together": cost.together,
        "evaluated_together": meter.together,
        "compile_seconds": cost.compile_seconds + meter.compile_seconds + earlier.compile_seconds,
    }


def _answers(predictor, task: Task, examples, meter: Meter, seed: int) -> Mapping[str, Answers]:
    """What the arm answers, under each of its readings."""
    if task.kind is Texts:
        return {"": _written(predictor, task, examples, meter, seed)}
    readings = predictor.predict(examples, meter)
    if not all(np.isfinite(s).all() for scores in readings.values() for s in scores):
        raise UserError(
            "its scores are not finite: the model's numbers overflow, or its weights are damaged; "
            "try dtype=float32"
        )
    if task.kind is Likelihoods:
        spaces = [len(text.encode()) for text in predictor.spaces(examples)]
        logprobs, *passed_by = np.stack(readings[""], axis=1)
        greedy = [bool(n == 0) for own in passed_by for n in own]
        return {"": Likelihoods(logprobs, [e.target for e in examples], spaces, greedy)}
    targets = np.array([e.target for e in examples])
    texts = [predictor.words or e.choices for e in examples]
    plain = {"": texts} if predictor.of_texts else {}
    return {
        name: Choices(
            np.array([int(np.argmax(s)) for s in scores]), targets, scores, plain.get(name, ())
        )
        for name, scores in readings.items()
    }


def _written(predictor, task: Task, examples: Sequence[Example], meter: Meter, seed: int) -> Texts:
    samples = predictor.write(examples, meter, seed)
    right = partial(expected, generation=task.generation)
    targets = [right(e.target) for e in examples]
    if any(name.startswith("pass@") for name in task.metrics):
        programs = [
            [e.prompt + text + e.program for text in texts]
            for e, texts in zip(examples, samples, strict=True)
        ]
        verdicts = [passed(one) for one in programs]
        return Texts([texts[0] for texts in samples], targets, verdicts)
    answers = [voted(texts, task.generation) for texts in samples]
    form = partial(compared, generation=task.generation)
    further = [tuple(map(right, e.further)) for e in examples]
    return Texts(answers, targets, further=further, form=form)


def _predictions(
    own: dict, examples, answers: Answers, measure: Measure, words: Sequence[str]
) -> Iterator[dict]:
    for i, (example, value) in enumerate(zip(examples, measure.items(answers), strict=True)):
        yield {
            "arm": own["arm"],
            "task": own["task"],
            "seed": own["seed"],
            "id": example.id,
            **_shown(example, answers, i),
            **({"word": words[answers.chosen[i]]} if words else {}),
            "value": None if value is None else float(value),
        }


def _shown(example: Example, answers: Answers, i: int) -> dict:
    """An item's prediction, target and scores."""
    if isinstance(answers, Choices):
        scores = [float(v) for v in answers.scores[i]]
        chosen = example.choices[answers.chosen[i]]
        return {"prediction": chosen, "target": example.answer, "scores": scores}
    if isinstance(answers, Texts):
        return {"prediction": answers.written[i], "target": example.answer, "scores": []}
    scores = [float(answers.logprobs[i])]
    greedy = {"greedy": answers.greedy[i]} if answers.greedy else {}
    return {"prediction": None, "target": example.answer, "scores": scores, **greedy}
