"""Many runs: the study file, the plan, the ledger, the engine and MLflow as a projection of the ledger."""
