"""`lm_eval` with lmlite among its models."""

import sys

try:
    from lm_eval.__main__ import cli_evaluate
except ImportError as error:
    sys.exit(f"error: {error}; install lmlite[harness]")

from lmlite.errors import UserError
from lmlite.harness import model  # noqa: F401 - registers itself

if __name__ == "__main__":
    try:
        cli_evaluate()
    except UserError as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
