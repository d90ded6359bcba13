"""Reasoners side by side: accuracy, what thoughts are worth, which findings controls show too."""
