"""What is particular to each family of Hugging Face: its config.json's words and its names.

A family is added in the file of its role alone: one `Family`, all of it data.
"""

from lmlite.models.families.decoders import DECODERS
from lmlite.models.families.encdecs import ENCDECS
from lmlite.models.families.encoders import ENCODERS
from lmlite.models.families.family import Family
from lmlite.models.families.recurrents import RECURRENTS

FAMILIES: dict[str, Family] = DECODERS | ENCODERS | ENCDECS | RECURRENTS

__all__ = ["FAMILIES", "Family"]
