"""What is said of a run: figures, claims and the report, made from its records (no torch)."""
