"""Erase what can be read, and see whether the answer depends on it."""

STUDY = "design:Erasure"
