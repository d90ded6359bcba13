"""Who thinks: models that reason in continuous thoughts, behind one contract."""
