"""Hyperparameters by trials: Optuna asks, the engine trains, ``scaling.fits.tuned_law`` makes laws of what came out."""
