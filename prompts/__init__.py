"""One YAML file per prompt: name, version, declared variables, text."""
