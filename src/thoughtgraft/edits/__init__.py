"""What is changed: sites, edits, arms, plans. Knows no model."""

from thoughtgraft.edits import known as known  # Whoever asks for an edit by its name finds all of them.
