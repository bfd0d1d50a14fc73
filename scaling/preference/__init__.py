"""Statistics of preferences: best-of-n, win rates, agreement, length, and how far a reward model can be believed."""
