"""What `experiments.pretrain` does: text to a model in the workdir."""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lmlite import tree
from lmlite.models.lm import LM
from lmlite.pretrain import corpus, vocabulary
from lmlite.pretrain.loss import held_out_loss
from lmlite.pretrain.model import build_objective, end_id, random_model, sentinels_needed
from lmlite.pretrain.objectives import Objective
from lmlite.pretrain.report import write_report
from lmlite.pretrain.training import Settings, Trained, fit
from lmlite.runtime import Meter, PeakMemory
from lmlite.workdir import Records, event_writer, read_config, write_data


def pretrain(config: ConfigDict, workdir: Path) -> None:
    """Trains config.model on config.data; writes results.jsonl, report.md, model/best, model/last.

    A run that was cut off goes on from its checkpoint; a finished one is only told again.
    Raises UserError for settings, text or sizes that do not fit.
    """
    results = Records(workdir / "results.jsonl")
    if not results.rows():
        results.add(_train(config, workdir))
    for row in results.rows():
        print(f"{row['split']} {row['metric']} {row['value']:.4f}")
    print(f"models: {workdir / 'model'}, report: {workdir / 'report.md'}")


def _train(config: ConfigDict, workdir: Path) -> list[dict]:
    memory, meter, settings = PeakMemory(), Meter(), _settings(config)
    job = _prepare(config)
    print(
        f"{tree.count(job.lm.params):,} parameters, {job.lm.config.vocab_size} tokens; "
        f"{len(job.train.ids):,} tokens to train on, {len(job.held_out.ids):,} held out",
        flush=True,
    )
    texts = (np.asarray(part.ids).tobytes() for part in (job.train, job.held_out))
    write_data(workdir, hashlib.sha256(b"".join(texts)).hexdigest())
    with event_writer(workdir, config.objective.kind) as events:
        trained = fit(
            job.lm, job.objective, job.train, job.held_out, settings, meter,
            workdir / "checkpoints", _log(events, settings.steps),
        )  # fmt: skip
    for name in ("best", "last"):
        params = jax.tree.map(jnp.asarray, getattr(trained, name))
        dataclasses.replace(job.lm, params=params).save(workdir / "model" / name)
    rows = _results(config, job, trained, meter, memory)
    write_report(workdir, rows, trained.history, read_config(workdir))
    return rows


class _Job(NamedTuple):
    """What is trained, and on what."""

    lm: LM
    objective: Objective
    train: corpus.Stream
    held_out: corpus.Stream
    texts: corpus.Texts


def _prepare(config: ConfigDict) -> _Job:
    """The text, the tokenizer it makes, and a random model."""
    sentinels = sentinels_needed(config.objective, config.length)  # before any text is fetched
    texts = corpus.texts(config.data)
    # A character's existence is not worth predicting: as usual, all of them make the vocabulary.
    learn = sum(texts, ()) if config.tokenizer.kind == "characters" else texts.train
    tokenizer = vocabulary.train(
        learn, config.tokenizer.kind, config.tokenizer.vocab_size, config.objective.kind, sentinels
    )
    lm = random_model(config, tokenizer)
    train, held_out = (corpus.encode(tokenizer, part, end_id(tokenizer)) for part in texts)
    return _Job(lm, build_objective(config, lm), train, held_out, texts)


def _settings(config: ConfigDict) -> Settings:
    optim = config.optim.to_dict()
    return Settings(config.steps, config.batch_size, config.eval_every, config.seed, optim)


def _log(events, steps: int) -> Callable:
    def log(step, values):
        for name, value in values.items():
            events.add_scalar(name, value, step)
        told = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        print(f"step {step}/{steps}: {told}", flush=True)

    return log


def _results(
    config: ConfigDict, job: _Job, trained: Trained, meter: Meter, memory: PeakMemory
) -> list[dict]:
    """Rows of results.jsonl: what the best model makes of the held-out text."""
    own, lm = Meter(), job.lm
    loss, count = held_out_loss(
        lm.network, trained.best, job.objective, job.held_out, config.batch_size, config.seed, own
    )
    common = {
        "n": count,
        "examples": config.steps * config.batch_size * config.length,
        "trainable_params": tree.count(lm.params),
        "stored_bytes": tree.size_bytes(lm.params),
        "train_seconds": trained.seconds,
        "eval_seconds": own.seconds,
        "train_flops": trained.flops,
        "flops_per_query": own.flops / count,
        "peak_bytes": memory.read(),
        "compile_seconds": meter.compile_seconds + own.compile_seconds,
    }
    identity = {
        "arm": lm.config.family,
        "task": config.data.source,
        "split": "held-out",
        "seed": config.seed,
    }
    kinds = config.objective.kind, config.tokenizer.kind
    found = measures(loss, *kinds, job.held_out, job.texts.held_out)
    return [{**identity, "metric": name, "value": value, **common} for name, value in found.items()]


def measures(
    loss: float, objective: str, tokenizer: str, stream: corpus.Stream, documents: tuple[str, ...]
) -> dict[str, float]:
    """loss (nats a target) and perplexity, exp of it; where every token of a text is predicted and
    spells it exactly, also bits_per_byte and character_perplexity, which compare tokenizers.
    """
    found = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if objective == "causal" and tokenizer not in vocabulary.LOSSY:
        total = loss * len(stream.ids)
        size = sum(len(text.encode()) for text in documents)
        found["bits_per_byte"] = total / size / math.log(2)
        found["character_perplexity"] = float(np.exp(total / sum(map(len, documents))))
    return found
