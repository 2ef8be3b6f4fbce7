"""The comparison told to people: on the terminal and in a workdir's report.md."""

from lmlite.report.document import write_report
from lmlite.report.table import print_table

__all__ = ["print_table", "write_report"]
