"""What is changed: edits, arms, plans. Knows no model."""
