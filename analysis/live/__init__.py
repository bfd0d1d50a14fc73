"""A study looked at while it runs: read from the ledger, served on the loopback address, never written to."""
