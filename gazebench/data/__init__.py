"""Data sets, annotations, pictures, and the one data module."""
