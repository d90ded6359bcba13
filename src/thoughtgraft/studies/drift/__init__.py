"""One plan under several protocols."""
