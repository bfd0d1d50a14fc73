"""How a worker ends when it was told to: what those who start workers know without importing torch."""

from __future__ import annotations

__all__ = ["REFUSED", "STOPPED"]

STOPPED = 143
"""It saved and gave its run back on SIGTERM or SIGINT: neither the end of the work (0) nor a fault."""
REFUSED = 2
"""It can't train here, for the reason that is the last line of its log; what whoever starts it can change."""
