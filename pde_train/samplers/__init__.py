"""Ways of choosing points: one file and one YAML file each."""
