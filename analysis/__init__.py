"""From a study's results to something to look at: figures, pages, the report, and MLflow's parent run."""
