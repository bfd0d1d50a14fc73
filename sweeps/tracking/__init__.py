"""MLflow as the ledger's projection."""
