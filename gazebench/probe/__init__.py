"""Probers, which name the regions of an image that are likely to attract a person, and the splits built from them."""
