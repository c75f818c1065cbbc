"""Statistics of embeddings that tell learning from collapse; pure functions on (N, D)."""
