"""The one error a user can cause: it says what was given, what is allowed and what to type instead."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """A mistake in what the user gave us, in one line naming the field, the value and the remedy.

    The command line prints the message alone, without a traceback, and exits with 2. Anything that is not a
    ``UserError`` is a fault of ours and keeps its traceback in a log file.
    """
