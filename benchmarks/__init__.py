"""Timings, as ratios or against a stated limit, with medians; never part of the tests."""
