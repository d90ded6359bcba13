"""The named data sets: one file each, with its `TASK`; a file that is put here is found by its name."""
