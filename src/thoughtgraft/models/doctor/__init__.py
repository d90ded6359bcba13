"""What a checkpoint is, whether it would load, and what is wrong with it, told without keeping its weights."""
