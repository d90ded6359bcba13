"""Figures: each computes in a `from_*` classmethod and then only draws."""
