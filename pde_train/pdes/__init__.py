"""Equations: one file and one YAML file each."""
