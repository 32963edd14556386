"""A small installable package with a method or a data set of one's own, written from templates."""
