"""A study: the comparison repeated with more labelled examples, and one table of it all."""

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from ml_collections import ConfigDict

from lmlite.compare import compare
from lmlite.errors import UserError
from lmlite.ranges import number
from lmlite.report.across import across
from lmlite.report.summary import Summary, summarize
from lmlite.workdir import CONFIG, Records, read_config, write_config, write_text

REPORT = "report.md"


def study(config: ConfigDict, workdir: Path) -> None:
    """Runs `compare` at every point of config.points, and writes report.md of all of them.

    A point is (labelled examples, factor, most): tuning passes over its examples `factor` times as
    often as the arms say (and waits as many times as long for a better epoch), and only the `most`
    most accurate arms of the point before take part beside those of config.always; 0 for all arms.
    A point's run is the folder 'N-labels' of `workdir`, whole in itself and resumed like any other:
    arms that a study has gained run at every point (by the same choice), and those that a point has
    had stay in it. Raises UserError where no point is left with an arm; an arm that fails is told
    of when all points are done.
    """
    _check(config)
    found: list[tuple[str, Sequence[Summary]]] = []
    failed = []
    for labels, factor, most in config.points:
        names, folder = list(config.arms), workdir / f"{labels}-labels"
        if most and failed and not found[-1][1]:
            break  # no arm has a result to be chosen by
        if most:
            kept = (*config.always, *_arms_of(folder))
            names = chosen(names, found[-1][1] if found else (), most, kept)
        point = at_point(config, names, labels, factor)
        write_config(folder, point)
        try:
            compare(point, folder)
        except UserError as error:
            failed.append(f"{labels} labels: {error}")
        rows, answers = (Records(folder / f"{n}.jsonl").rows() for n in ("results", "predictions"))
        found.append((f"{labels} labels", summarize(rows, answers)))
        if any(summaries for _, summaries in found):
            write_text(workdir / REPORT, across(found, config.task.source, config.model))
    if (workdir / REPORT).exists():
        print((workdir / REPORT).read_text())
    if failed:
        raise UserError("; ".join(failed))


def _check(config: ConfigDict) -> None:
    """Before anything runs: points that are some, and names that are known."""
    if not config.points:
        raise UserError("points is empty; name at least one (labels, factor, arms kept)")
    for labels, factor, most in config.points:
        number("points: labels", labels, 1, kind=Integral)
        number("points: factor", factor, 0)
        number("points: arms kept", most, 0, kind=Integral)
    if unknown := [name for name in config.always if name not in config.arms]:
        known = ", ".join(config.arms)
        raise UserError(f"always names {unknown[0]!r}, which is no arm here; known: {known}")


def chosen(
    names: Sequence[str], before: Sequence[Summary], most: int, always: Sequence[str]
) -> list[str]:
    """The `most` best arms of the point before and those of `always`, in the order of `names`.

    An arm counts by its plain reading. Raises UserError where no point comes before.
    """
    ranked = [s.arm for s in before if s.arm in names]
    if not ranked:
        raise UserError("points: the first has none before it to choose arms by; give it most=0")
    kept = {*ranked[:most], *always}
    return [name for name in names if name in kept]


def _arms_of(folder: Path) -> tuple[str, ...]:
    """The arms of a point that was run before."""
    return tuple(read_config(folder)["config"]["arms"]) if (folder / CONFIG).exists() else ()


def at_point(config: ConfigDict, names: Sequence[str], labels: int, factor: float) -> ConfigDict:
    """The config of `compare` at a point."""
    fields = config.to_dict()
    del fields["points"], fields["always"]
    arms = {name: fields["arms"][name] for name in names}
    for arm in arms.values():
        if "train" in arm:
            for field in ("epochs", "patience"):
                given = arm["train"][field]
                arm["train"][field] = max(min(1, given), round(given * factor))
    return ConfigDict({**fields, "examples": labels, "arms": arms}).lock()
