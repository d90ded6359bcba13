"""What records mean: estimates, intervals, tests and claims, from a table of generations alone (no torch)."""
