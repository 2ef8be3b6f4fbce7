"""report.md of a pretraining run: what it reached, and the curves of its losses."""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lmlite.report import units
from lmlite.report.table import markdown
from lmlite.workdir import write_bytes, write_text

PICTURE = "loss.png"
_MOST_ROWS = 20


def write_report(workdir: Path, rows: list[dict], history: np.ndarray, record: dict) -> None:
    """Writes report.md and loss.png into `workdir`, each complete or not at all.

    rows: of results.jsonl; history: float64[readings, 4], columns `training.HISTORY`; record:
    config.json.
    """
    write_bytes(workdir / PICTURE, curves(history))
    write_text(workdir / "report.md", document(rows, history, record))


def curves(history: np.ndarray) -> bytes:
    """A PNG: mean training loss and held-out loss by step."""
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(history[:, 0], history[:, 1], color="#0072B2", marker=".", label="training")
    axes.plot(history[:, 0], history[:, 3], color="#D55E00", marker=".", label="held-out")
    axes.set(xlabel="step", ylabel="loss (nats a target)")
    axes.grid(axis="y", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def document(rows: list[dict], history: np.ndarray, record: dict) -> str:
    """The Markdown text of the report."""
    first, config = rows[0], record["config"]
    reached = markdown(
        ("metric", "held-out"), [[r["metric"], f"{r['value']:.4f}"] for r in rows], [False, True]
    )
    shown = history[:: -(-len(history) // _MOST_ROWS)]
    course = markdown(
        ("step", "training loss", "gradient norm", "held-out loss"),
        [[f"{row[0]:.0f}", *(f"{value:.4f}" for value in row[1:])] for row in shown],
        [True] * 4,
    )
    facts = {
        "Model": f"{first['arm']}, {units.count(first['trainable_params'])} parameters",
        "Text": first["task"],
        "Objective": config["objective"]["kind"],
        "Tokenizer": config["tokenizer"]["kind"],
        "Targets held out": f"{first['n']}",
        "Training": f"{units.seconds(first['train_seconds'])}, "
        f"{units.flops(first['train_flops'])}FLOP, without compilation",
        "Processor": record["processor"],
        "Devices": ", ".join(record["devices"]),
        "Date": record["date"],
        "Commit": record["commit"],
        "Command": f"`{record['command']}`",
    }
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return (
        f"# Pretraining on {first['task']}\n\n{reached}\n\n"
        "Of the model with the lowest held-out loss (model/best).\n\n"
        f"![Losses by step]({PICTURE})\n\n{course}\n\n## How it was trained\n\n{told}\n"
    )
