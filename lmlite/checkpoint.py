"""Orbax checkpoints of a training state: the trainable tree, its optimizer, and where it was."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lmlite.errors import UserError

_SMALL = 2**18  # elements


class Checkpoints:
    """The newest checkpoint of one run under `directory`; older ones are removed.

    Only the trainable tree is saved, so an adapter's checkpoint is as small as the adapter and a
    full tuning's holds the model. Writing is atomic: a run killed while saving finds the last one.

    Small leaves are saved end to end, one vector a dtype: the hundreds of matrices of an adapter
    take a tenth of a second instead of the two that a file entry each would. `index` tells, in the
    order of the vectors, each leaf's path, shape and dtype.
    """

    def __init__(self, directory: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, create=True, enable_async_checkpointing=False
        )
        try:
            self._manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {directory}: {error}") from error

    def save(self, step: int, state: Any) -> None:
        """Saves a pytree of arrays as of `step` and returns when it is durable.

        Raises UserError where it cannot be written; the one before stays.
        """
        index = _index(state)
        leaves = dict(zip(index, jax.tree.leaves(state), strict=True))
        packed = {
            dtype: np.concatenate([np.ravel(leaves[path]) for path in paths])
            for dtype, paths in _small(index).items()
        }
        large = {path: leaf for path, leaf in leaves.items() if np.size(leaf) >= _SMALL}
        arrays = ocp.args.StandardSave({"small": packed, "large": large})
        described = ocp.args.JsonSave(index)
        try:
            self._manager.save(step, args=ocp.args.Composite(arrays=arrays, index=described))
        except (OSError, ValueError) as error:  # a full disk is either, by who meets it
            why = " ".join(str(error).split())
            raise UserError(
                f"cannot write a checkpoint to {self._manager.directory} (... {why[-100:]}); make "
                "room, and the same command goes on from the one before"
            ) from error

    def restore(self, like: Any) -> Any | None:
        """The newest state in the structure of `like`, or None where there is none.

        Raises UserError where the checkpoint does not fit (it came from another configuration), and
        where its files are damaged.
        """
        step = self._manager.latest_step()
        try:
            return None if step is None else self._found(step, like)
        except (KeyError, ValueError, FileNotFoundError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(
                f"checkpoint {self._manager.directory} is damaged ({why}); delete that folder to "
                "train anew"
            ) from error

    def _found(self, step: int, like: Any) -> Any:
        index = _index(like)
        found = self._manager.restore(step, args=ocp.args.Composite(index=ocp.args.JsonRestore()))
        if found["index"] != index:
            differ = {*map(str, found["index"].items())} ^ {*map(str, index.items())}
            raise UserError(
                f"checkpoint {self._manager.directory} does not fit this run (it differs at "
                f"{min(differ)}); use another workdir"
            )
        restored = self._manager.restore(
            step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(_shapes(index)))
        )["arrays"]
        leaves = dict(restored["large"])
        for dtype, paths in _small(index).items():
            ends = np.cumsum([int(np.prod(index[path]["shape"])) for path in paths])
            parts = np.split(np.asarray(restored["small"][dtype]), ends[:-1])
            for path, part in zip(paths, parts, strict=True):
                leaves[path] = part.reshape(index[path]["shape"])
        found = jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in index])
        return jax.tree.map(_placed, like, found)

    def close(self) -> None:
        """Releases the manager's threads."""
        self._manager.close()


def _index(state: Any) -> dict[str, dict]:
    """{path: {shape, dtype}} in the order of the leaves."""
    pairs, _ = jax.tree.flatten_with_path(state)
    return {
        jax.tree_util.keystr(path): {"shape": list(np.shape(leaf)), "dtype": str(leaf.dtype)}
        for path, leaf in pairs
    }


def _placed(like: Any, found: Any) -> Any:
    """As `like` is: on the device, or a numpy array with a dtype JAX may not have."""
    return jax.numpy.asarray(found) if isinstance(like, jax.Array) else np.asarray(found)


def _small(index: dict[str, dict]) -> dict[str, list[str]]:
    """{dtype: paths of the leaves that share its vector}."""
    groups: dict[str, list[str]] = {}
    for path, leaf in index.items():
        if np.prod(leaf["shape"]) < _SMALL:
            groups.setdefault(leaf["dtype"], []).append(path)
    return groups


def _shapes(index: dict[str, dict]) -> dict:
    """What was saved, as abstract arrays."""

    def size(path):
        return int(np.prod(index[path]["shape"]))

    small = {d: (sum(size(path) for path in paths),) for d, paths in _small(index).items()}
    return {
        "small": {dtype: jax.ShapeDtypeStruct(shape, dtype) for dtype, shape in small.items()},
        "large": {
            path: jax.ShapeDtypeStruct(tuple(leaf["shape"]), leaf["dtype"])
            for path, leaf in index.items()
            if size(path) >= _SMALL
        },
    }
