"""Other people's runs: MLflow experiments, W&B exports, TensorBoard folders and Optuna studies as tables to fit."""
