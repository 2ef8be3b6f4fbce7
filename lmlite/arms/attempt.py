"""What cannot run here is told of, and leaves the others to run."""

from collections.abc import Callable
from typing import Any

import jax

from lmlite.errors import UserError


def attempt(function: Callable, *args: Any) -> Any:
    """What the function returns; or why it returns nothing, a UserError, or no memory being left.

    The error is a new one: the traceback of another would keep the frames it came through, and
    with them the arrays whose memory the next arm needs.
    """
    try:
        return function(*args)
    except UserError as error:
        told = str(error)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told = (
            f"ran out of memory ({str(error).splitlines()[0]}); lower train.batch_size, or set "
            "train.remat=block; of a prompt, lower tree_tokens"
        )
    return UserError(told)
