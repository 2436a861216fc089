"""Where runs are kept: one file and one YAML file each."""
