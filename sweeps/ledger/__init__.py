"""The ledger: every run's state as transactions, its schema, and who may change it."""
