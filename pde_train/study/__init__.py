"""The study's verdicts, from the runs in a tracking store to one page."""
