"""What a task is: its items by split, with the choices or the text that should follow each."""

import dataclasses
from collections.abc import Callable, Sequence

from lmlite.errors import UserError
from lmlite.metrics.kinds import Choices, Likelihoods, Texts
from lmlite.metrics.measures import named

CONTENT_FREE = ("N/A", "[MASK]", "")
_DEFAULT_METRICS = {Choices: "accuracy", Texts: "chrf", Likelihoods: "bits_per_byte"}


@dataclasses.dataclass(frozen=True)
class Generation:
    """How answers are written: see `lmlite.decode.generate`.

    samples: texts an item. extract: a regex whose first group, in its last match, is the answer;
    unfound: the answer where no text has a match. extract_right: whether a right answer that has a
    match, a chain of thought, is cut out alike. ignore: regexes of what is left out of it, and of
    the right one, before they are compared; ignore_case: whether they are compared in lower case.
    strip: where white space at either end is left out, in 'both', in the 'answer' that is written,
    or 'none'.
    """

    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    samples: int = 1
    extract: str = ""
    extract_right: bool = True
    unfound: str = ""
    ignore: tuple[str, ...] = ()
    ignore_case: bool = False
    strip: str = "both"


@dataclasses.dataclass(frozen=True)
class Example:
    """One item. The model sees `prompt`, then the task's target delimiter, then an answer.

    choices: the texts to choose among, () where the answer is generated. target: the index of the
    right choice, or the text to generate. Items of one group are never in two splits. program: of
    a task of code, what runs the tests once the answer stands before it. further: other texts that
    are right too.
    """

    id: str
    prompt: str
    choices: tuple[str, ...]
    target: int | str
    group: str
    program: str = ""
    further: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The text of the right answer."""
        return self.choices[self.target] if self.choices else self.target


@dataclasses.dataclass(frozen=True)
class Task:
    """Items by split. choices: those of every item, () where items have their own or none.

    frame: the prompt with every column filled in with one text. premise: what of the prompt stands
    after its last column. metrics: names of measures, the main one first. chat: prompts are
    messages of the model's chat template. generation: of answers that are written, not scored.
    shots, choose: the demonstrations that an arm without a number of its own shows, and how it
    chooses them ('random' or 'first'); shown: from these, () for the labelled ones.
    answers_delimited: whether answers bring what stands before
    them, so that the target delimiter is for demonstrations alone.
    """

    name: str
    choices: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    fewshot_delimiter: str = "\n\n"
    target_delimiter: str = " "
    answers_delimited: bool = False
    description: str = ""
    frame: Callable[[str], str] = str
    premise: str = ""
    metrics: tuple[str, ...] = ("accuracy",)
    chat: bool = False
    generation: Generation = Generation()
    run_code: bool = False
    shots: int = 0
    choose: str = "random"
    shown: tuple[Example, ...] = ()

    @property
    def content_free(self) -> tuple[str, ...]:
        """Prompts that say nothing, for contextual calibration (Zhao et al. 2021, section 5)."""
        return tuple(self.frame(text) for text in CONTENT_FREE)

    @property
    def kind(self) -> type:
        """What answers are: `Choices`, `Texts` written, or `Likelihoods` of given ones."""
        if self.train[0].choices:
            return Choices
        return Texts if self.generation.max_new_tokens else Likelihoods

    @property
    def asks_greedy(self) -> bool:
        """Whether a measure depends on which texts greedy decoding would write."""
        return "greedy_accuracy" in self.metrics


def with_metrics(task: Task, names: Sequence[str]) -> Task:
    """The task with its measures; () for the usual one. UserError for one that does not suit it."""
    names = tuple(names) or (_DEFAULT_METRICS[task.kind],)
    named(names, task.kind)
    if any(name.startswith("pass@") for name in names) and not task.run_code:
        raise UserError(
            "task.metrics asks whether written programs pass their tests, which runs them on this "
            "machine; set task.run_code=true to allow it"
        )
    samples = task.generation.samples
    for name in names:
        if name.startswith("pass@") and int(name.removeprefix("pass@")) > samples:
            raise UserError(
                f"task.metrics names {name!r}, which needs as many samples of an item, and "
                f"task.generation.samples={samples}; raise it, with a temperature"
            )
    return dataclasses.replace(task, metrics=names)
