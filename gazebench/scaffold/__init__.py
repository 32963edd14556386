"""``gazebench new``: writes a small installable package with a method or a dataset of one's own."""

from gazebench.scaffold.package import main, write

__all__ = ["main", "write"]
