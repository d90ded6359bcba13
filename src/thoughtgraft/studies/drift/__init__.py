"""The same swaps under several protocols, known mistakes among them."""

STUDY = "design:Drift"
