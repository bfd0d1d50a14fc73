"""The training loop and what it needs: step, schedule, optimiser, numerics, calibration, checkpoints."""
