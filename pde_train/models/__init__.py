"""Fields with parameters: one file and one YAML file each."""
