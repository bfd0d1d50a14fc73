"""Pages on which people decide: which answer is better, which synthesised task is good."""
