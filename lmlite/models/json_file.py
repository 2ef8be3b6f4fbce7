"""JSON objects in files, with errors that a user can act on."""

import json
import os
from pathlib import Path

from lmlite.errors import UserError


def read_json(path: Path) -> dict:
    """The object in `path`. Raises UserError where there is no file or no JSON in it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist; is this a Hugging Face model directory?") from e
    except ValueError as e:  # also what is not UTF-8
        raise UserError(f"{path} is not JSON ({e})") from e


def write_json(path: Path, content: dict) -> None:
    """Writes `content` whole or not at all."""
    path = Path(path)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, path)
