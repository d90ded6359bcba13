"""A training set grown from worked problems."""
