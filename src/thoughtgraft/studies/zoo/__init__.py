"""Models that think beside controls that do not."""

STUDY = "design:Zoo"
