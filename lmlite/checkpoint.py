"""Orbax checkpoints of a training state: the trainable tree, its optimizer, and where it was."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from lmlite.errors import UserError


class Checkpoints:
    """The newest checkpoint of one run under `directory`; older ones are removed.

    Only the trainable tree is saved, so an adapter's checkpoint is as small as the adapter and a
    full tuning's holds the model. Writing is atomic: a run killed while saving finds the one before.
    """

    def __init__(self, directory: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        try:
            self._manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {directory}: {error}") from error

    def save(self, step: int, state: Any) -> None:
        """Saves a pytree of arrays as of `step` and waits until it is durable."""
        self._manager.save(step, args=ocp.args.StandardSave(state))
        self._manager.wait_until_finished()

    def restore(self, like: Any) -> Any | None:
        """The newest state in the shapes of `like`, or None where there is none.

        Raises UserError where the checkpoint does not fit: it came from another configuration.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(shapes))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {self._manager.directory} does not fit this run "
                f"({str(error).splitlines()[0][:120]}); use another workdir"
            ) from error

    def close(self) -> None:
        """Releases the manager's threads."""
        self._manager.close()
