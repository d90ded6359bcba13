"""The checks that a model, protocol and engine must pass before a number counts; their outcome is the certificate."""

from __future__ import annotations

from thoughtgraft.engine.verify.certificate import Certificate, Check
from thoughtgraft.engine.verify.suite import LEVELS, verify

__all__ = ["LEVELS", "Certificate", "Check", "verify"]
