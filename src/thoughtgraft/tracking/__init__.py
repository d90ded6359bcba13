"""Runs followed from elsewhere."""
