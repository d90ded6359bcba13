"""Which thought carries the answer? Thoughts swapped between problems."""
