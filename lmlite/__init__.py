"""Adapting pretrained language models cheaply: in-context learning or light tuning, compared.

lm = lmlite.load("package:smollm2-135m-instruct")
lm.logits(token_ids)
"""

__version__ = "0.1.0"
__all__ = ["LM", "UserError", "load", "load_adapter"]


def __getattr__(name: str):
    """Resolved on first use: importing lmlite does not import jax, so `--help` is quick."""
    if name == "load":
        from lmlite.models.load import load

        return load
    if name == "load_adapter":
        from lmlite.peft import load_adapter

        return load_adapter
    if name == "LM":
        from lmlite.models.lm import LM

        return LM
    if name == "UserError":
        from lmlite.errors import UserError

        return UserError
    raise AttributeError(f"module 'lmlite' has no attribute {name!r}")
