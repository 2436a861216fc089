"""The life of a run: from its composed configuration to its result, its files and its entry in the store."""
