"""Trained runs in the layouts of other software; one converter an architecture."""
