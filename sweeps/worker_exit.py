"""How a worker ends when it was told to: what those who start workers know without importing torch."""

from __future__ import annotations

__all__ = ["STOPPED"]

STOPPED = 143
"""It saved and gave its run back on SIGTERM or SIGINT: neither the end of the work (0) nor a fault."""
