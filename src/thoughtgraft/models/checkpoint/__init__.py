"""Checkpoints of every family: found, guarded, read strictly, written."""
