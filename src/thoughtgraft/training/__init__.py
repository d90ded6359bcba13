"""How a model learns to think."""
