"""What is changed: arms, donors, schedules and the edits themselves; no model in sight."""
