"""Networks, crops and the training loop."""
