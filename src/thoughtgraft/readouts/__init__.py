"""What a thought says."""
