"""Grids of runs: which cells there are, which are done, who trains the others, and what they show together."""
