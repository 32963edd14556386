"""Methods, training, prediction, scoring and records."""
