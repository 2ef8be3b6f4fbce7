"""JSON objects in files, with errors that a user can act on."""

import json
import os
from pathlib import Path

from lmlite.errors import UserError


def read_json(path: Path) -> dict:
    """The object in `path`. Raises UserError where there is no file or no JSON object in it."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist; is this a Hugging Face model directory?") from e
    except ValueError as e:  # also what is not UTF-8
        raise UserError(f"{path} is not JSON ({e})") from e
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object but {str(content)[:20]!r}; fetch it again")
    return content


def write_json(path: Path, content: dict) -> None:
    """Writes `content` whole or not at all."""
    path = Path(path)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, path)
