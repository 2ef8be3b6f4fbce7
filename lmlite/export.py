"""What `experiments.export` does: a tuned model or an adapter to a directory that others open."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from lmlite import peft
from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.svd import to_lora
from lmlite.arms import Log
from lmlite.compare import drawn
from lmlite.data.fingerprint import fingerprint
from lmlite.errors import UserError
from lmlite.jobs import jobs
from lmlite.models.json_file import read_json, write_json
from lmlite.models.lm import LM
from lmlite.models.load import load
from lmlite.workdir import Records, read_config


def export(config: ConfigDict, workdir: Path) -> None:
    """Writes config.source in config.format, and export.json with what was written.

    Raises UserError where the source is neither a PEFT directory nor the workdir of a finished
    tuning run, or the format cannot hold its method.
    """
    if config.format not in FORMATS:
        raise UserError(f"format={config.format!r} is unknown; known: {', '.join(FORMATS)}")
    lm, adaptation = _read(config)
    record = FORMATS[config.format](adaptation, lm, workdir, config)
    record = {"source": config.source, "method": type(adaptation.method).__name__} | record
    write_json(workdir / "export.json", record)
    print(f"exported: {record['directory']}")


def _peft(adaptation: Adaptation, lm: LM, workdir: Path, config: ConfigDict) -> dict:
    peft.write(workdir / "adapter", adaptation, lm)
    return {"directory": str(workdir / "adapter")}


def _lora(adaptation: Adaptation, lm: LM, workdir: Path, config: ConfigDict) -> dict:
    """As LoRA of rank config.rank, with what that misses."""
    found = to_lora(adaptation, lm, config.rank)
    print(f"relative error at rank {config.rank}: {found.error:.3g}")
    if found.left_out:
        print(f"left out, as LoRA cannot hold them: {len(found.left_out)} parameters")
    error = {"rank": config.rank, "relative_error": found.error}
    details = {"layers": found.layers, "left_out": found.left_out}
    return _peft(found.adaptation, lm, workdir, config) | error | details


def _merged(adaptation: Adaptation, lm: LM, workdir: Path, config: ConfigDict) -> dict:
    if "probe" in adaptation.params:
        raise UserError("a model directory has no place for the trained head; use format=peft")
    adaptation.folded(lm).save(workdir / "model")
    return {"directory": str(workdir / "model")}


FORMATS: dict[str, Callable[..., dict]] = {"peft": _peft, "lora": _lora, "merged": _merged}


def _read(config: ConfigDict) -> tuple[LM, Adaptation]:
    """The base model and what adapts it."""
    source = Path(config.source).expanduser()
    if (source / "results.jsonl").exists():
        return read_run(source, config.run)
    if not (source / "adapter_config.json").exists():
        raise UserError(
            f"source={config.source!r} is neither a workdir of experiments.finetune nor a PEFT "
            "adapter directory; name one"
        )
    if not (name := config.model or _base(read_json(source / "adapter_config.json"))):
        raise UserError("the adapter does not tell its base model; set model")
    lm = load(name, config.dtype)
    return lm, peft.read(source, lm)


def _base(told: dict) -> str:
    """The base model that a PEFT config names: a path, a source of ours, or a name on the hub."""
    name, revision = told.get("base_model_name_or_path") or "", told.get("revision")
    if not name or ":" in name or Path(name).expanduser().exists():
        return name
    return f"hf://{name}" + (f"@{revision}" if revision else "")


def read_run(folder: Path, run: str = "") -> tuple[LM, Adaptation]:
    """The base model and the adaptation of a finished tuning run of the workdir `folder`.

    run: 'ARM-SEED', as the folders in checkpoints/ are named; '' where there is only one. The run
    is resumed from its checkpoint, which has nothing left to train. Raises UserError for an unknown
    or unfinished run.
    """
    config = ConfigDict(_tuples(read_config(folder)["config"]))
    if "arms" not in config or "examples" not in config:
        raise UserError(f"{folder} is no workdir of experiments.finetune or compare; name one")
    if config.get("folds"):
        raise UserError(f"{folder} is a cross-validation, which leaves no one model; set folds=0")
    tuned = {f"{job.name}-{job.seed}": job for job in jobs(config) if job.arm.family == "tuning"}
    if not run and len(tuned) == 1:
        (run,) = tuned
    if run not in tuned:
        raise UserError(f"run={run!r} is not one of {folder}; set run to one of {[*tuned]}")
    job = tuned[run]
    done = {(row["job"], row["seed"]) for row in Records(folder / "results.jsonl").rows()}
    if (job.name, job.seed) not in done:
        raise UserError(f"run {run} in {folder} is not finished; give its command again first")
    if not (folder / "checkpoints" / run).is_dir():
        raise UserError(f"{folder / 'checkpoints' / run} is gone; run the command anew elsewhere")
    (task, data, test), lm = drawn(config), _loaded(config)
    now = fingerprint(task, lm.params, data.train, data.dev, test)
    if read_config(folder).get("data", now) != now:
        raise UserError(
            f"the model, rows or prompts have changed since {folder} was made (or lmlite's record "
            "of them has), and its adapter belongs to the old ones; restore them, or give its "
            "command again elsewhere"
        )
    predictor = job.arm.fit(lm, task, data, job.seed, Log(folder / "checkpoints" / run))
    return lm, predictor.adaptation


def _loaded(config: ConfigDict) -> LM:
    """The base model of a workdir; one of an earlier version does not say `quantize`, and is to be
    refused for what it holds.
    """
    return load(config.model, config.dtype, config.get("quantize") or "")


def _tuples(value):
    """JSON's lists as the tuples that configs have."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
