"""From text files to memory-mapped tokens, and which of them each step sees."""
