"""Training of networks: the loop, how its steps are computed, checkpoints and signals."""
