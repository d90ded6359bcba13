"""The checks that a model, protocol and engine must pass before a number counts; their outcome is the certificate."""
