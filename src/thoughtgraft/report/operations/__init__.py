"""The report of an operations study, made from the tables of its analysis (no torch, no recomputation)."""
