"""Ways of taking derivatives: one file and one YAML file each."""
