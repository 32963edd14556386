"""A study: many runs planned in one YAML file, run resumably, and rendered in the layout of a paper's tables."""
