"""What of a problem's arithmetic can be read from its thoughts."""

STUDY = "design:Operations"
