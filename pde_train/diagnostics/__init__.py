"""Which matrices of a training run are looked at, and when: one file and one YAML file each."""
