"""Records on disk: the contract between the half that produces and the half that reads."""
