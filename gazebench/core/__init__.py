"""Types, errors, files, plug-ins and processes: used by every other package."""
