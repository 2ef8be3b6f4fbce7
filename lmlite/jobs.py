"""The jobs of a comparison: which its config asks for, and which are fitted together."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from lmlite import arms
from lmlite.arms import Arm, Labelled
from lmlite.arms.in_context import DRAWS
from lmlite.data.task import Task
from lmlite.errors import UserError
from lmlite.models.lm import LM
from lmlite.ranges import SEEDS, check

TOGETHER = {"cpu": 1}  # arms in a step where config.together is 0; elsewhere:
_OTHER_TOGETHER = 8


class Job(NamedTuple):
    """One fit and one evaluation."""

    name: str
    arm: Arm
    seed: int

    @property
    def run(self) -> str:
        """Its name among files."""
        return f"{self.name}-{self.seed}"

    def identity(self, task: Task, split: str = "test") -> dict:
        """What tells its rows of results from those of others."""
        return {
            "arm": self.name,
            "job": self.name,
            "family": self.arm.family,
            "task": task.name,
            "split": split,
            "seed": self.seed,
            **self.arm.details(self.seed),
        }


def jobs(config: ConfigDict) -> Iterator[Job]:
    """Every fit that `config` asks for.

    UserError for an arm that cannot be built, and for counts, seeds and draws out of their range.
    """
    check(config, "examples", 1)
    check(config, "test_items", 1)
    check(config, "seeds", 0, SEEDS)
    check(config, "draws", 0, DRAWS)
    for name, spec in config.arms.items():
        arm = arms.build(spec.to_dict())
        for seed in arm.runs(config.seeds, config.draws):
            yield Job(name, arm, seed)


def grouped(jobs: Sequence[Job], together: int) -> list[list[Job]]:
    """Jobs of one form together, as many as config.together says; by the first of each group.

    Raises UserError for a negative number.
    """
    most = _most(together)
    groups: list[list[Job]] = []
    open_groups: dict = {}
    for job in jobs:
        form = job.arm.form()
        group = open_groups.get(form)
        if form is None or group is None or len(group) == most:
            group = []
            groups.append(group)
            open_groups[form] = group
        group.append(job)
    return groups


def _most(together: int) -> int:
    """How many jobs may be fitted in one step."""
    if together < 0:
        raise UserError(f"together={together} is negative; use 0 (by device), 1 (in turn) or more")
    return together or TOGETHER.get(jax.default_backend(), _OTHER_TOGETHER)


def check_saving(job: Job, lm: LM, data: Labelled) -> None:
    """Raises UserError where the tuned model would be no plain one: before it is trained."""
    arm = job.arm
    if arm.family == "tuning" and (
        not arm.method.foldable or lm.hooks or lm.virtual or arm.headed(lm, data.train)
    ):
        raise UserError(
            f"save=true: what {job.name} trains cannot be folded into a model of the base's kind; "
            "leave it out, and use experiments.export on the workdir"
        )
