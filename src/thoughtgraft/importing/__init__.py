"""Results that others stored, brought into runs of this project."""
