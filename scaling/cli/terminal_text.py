"""Text of a model on standard output, as it comes."""

from __future__ import annotations

import sys
from unicodedata import category

__all__ = ["show_text"]


def show_text(text: str) -> None:
    """Print ``text`` at once. A terminal gets no control characters that a model may have learned."""
    safe = "".join("\N{REPLACEMENT CHARACTER}" if category(c) == "Cc" and c not in "\n\t" else c for c in text)
    sys.stdout.write(safe if sys.stdout.isatty() else text)
    sys.stdout.flush()
