"""Tasks with an exact score, by name."""
