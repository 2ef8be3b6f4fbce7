"""The jobs of a comparison: numbers that cannot be, and arms that find no memory."""

import jax
import pytest
from tiny_lm import write_model, write_task

from configs import compare as config_of
from lmlite import compare as comparing
from lmlite.arms import in_context
from lmlite.arms.tuned import Tuned
from lmlite.config import override
from lmlite.errors import UserError
from lmlite.jobs import DRAWS, jobs
from lmlite.workdir import Records, write_config

EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.\nBuffers: ..."


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_model(folder / "model", layers=1)
    write_task(folder / "task.csv")
    arms = "linear-probe,zero-shot"
    made = config_of.get_config(f"csv:{folder / 'task.csv'}", str(folder / "model"), arms)
    fields = {"task.labels": ("bad", "good"), "task.choices": ("no", "yes"), "seeds": (0,)}
    return override(made.lock(), fields | {"examples": 8, "test_items": 8, "draws": (0,)})


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("test_items", 0, "test_items=0 must be a whole number of at least 1"),
        ("test_items", -1, "test_items=-1 must be a whole number of at least 1"),
        ("examples", -1, "examples=-1 must be a whole number of at least 1"),
        ("examples", 0, "examples=0 must be a whole number of at least 1"),
        ("seeds", (0, -1), "seeds=-1 must be a whole number of at least 0 and at most 4294967295"),
        ("seeds", (2**32,), "seeds=4294967296 must be a whole number of at least 0"),
        ("draws", (-1,), "draws=-1 must be a whole number of at least 0 and at most 999"),
        ("seeds", (), r"seeds=\(\) must name at least one number"),
        ("seeds", (0, 1, 0), r"seeds=\(0, 1, 0\) must name .* and none twice"),
        ("draws", (24, 1000), "draws=1000 must be a whole number of at least 0 and at most 999"),
    ],
)
def test_numbers_that_cannot_be_are_told_before_anything_is_loaded(
    config, field, value, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(comparing, "load_task", lambda config: pytest.fail("loaded"))
    with pytest.raises(UserError, match=words):
        comparing.compare(override(config, {field: value}), tmp_path)


def test_every_draw_and_order_is_a_run_of_its_own(config):
    arm = in_context.InContext(shots=2, orders=3)
    runs = arm.runs((0,), range(DRAWS))
    assert len(set(runs)) == 3 * DRAWS and {arm.details(r)["draw"] for r in runs} == {*range(DRAWS)}
    assert len(list(jobs(override(config, {"draws": (DRAWS - 1,)})))) == 2


def exhausted(*args, **kwargs):
    raise jax.errors.JaxRuntimeError(EXHAUSTED)


@pytest.mark.parametrize("where", ["fit", "evaluate"])
def test_an_arm_without_memory_leaves_the_others(config, where, tmp_path, monkeypatch):
    write_config(tmp_path, config)
    if where == "fit":
        monkeypatch.setattr(Tuned, "fit", exhausted)
    else:
        good = comparing.evaluate
        ways = {"linear-probe": exhausted, "zero-shot": good}
        monkeypatch.setattr(comparing, "evaluate", lambda *a: ways[a[3]["arm"]](*a))
    words = r"arm linear-probe: ran out of memory \(RESOURCE.* 8 bytes.\); lower train.batch_size, "
    with pytest.raises(UserError, match=words + "or set train.remat=block") as raised:
        comparing.compare(config, tmp_path)
    assert "\n" not in str(raised.value)
    assert {row["job"] for row in Records(tmp_path / "results.jsonl").rows()} == {"zero-shot"}
    assert "ran out of memory" in (tmp_path / "report.md").read_text()


def test_another_error_of_the_device_is_no_users(config, tmp_path, monkeypatch):
    def broken(*args):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

    write_config(tmp_path, config)
    monkeypatch.setattr(Tuned, "fit", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        comparing.compare(config, tmp_path)
