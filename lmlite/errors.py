"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something the user can mend: names the field, the value and the remedy, in one line.

    Entry points print it on stderr and exit with status 2, without a traceback.
    """
