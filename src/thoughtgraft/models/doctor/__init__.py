"""What a checkpoint is, whether it would load, and what is wrong with it, told without keeping its weights."""

from thoughtgraft.models.doctor.diagnosis import Diagnosis, Finding
from thoughtgraft.models.doctor.examine import diagnose

__all__ = ["Diagnosis", "Finding", "diagnose"]
