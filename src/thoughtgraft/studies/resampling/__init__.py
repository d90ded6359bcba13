"""Swap each thought for other problems', beside every ablation."""

STUDY = "design:Resampling"
