"""Numbers with intervals: clustered estimates, families of means, power, resampling, verdicts."""
