"""Measuring a trained model: the loss on the fixed held-out set. Benchmarks and contamination will live here."""
