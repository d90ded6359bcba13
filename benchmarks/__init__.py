"""Measures the engine against the origin's algorithm, official-style batches, expanded caches and the hardware."""
