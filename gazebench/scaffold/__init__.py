"""Writes a small installable package with a new method or data set, from templates."""
