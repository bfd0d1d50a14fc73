"""One training run: corpus, tokenizer, shards, model, loop, checkpoint and held-out loss."""
