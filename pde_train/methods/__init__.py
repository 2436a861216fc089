"""Ways of finding parameters: one file and one YAML file each."""
