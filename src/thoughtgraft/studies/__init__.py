"""Which question is asked: plans as data."""
