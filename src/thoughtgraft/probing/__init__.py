"""From states to labels: probes, what they must beat, scores with intervals, tables."""
