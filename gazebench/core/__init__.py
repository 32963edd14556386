"""Types, errors, files and processes: what every other package stands on."""
