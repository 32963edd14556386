"""The merge takes the full version."""

from gazebench.core.weights import file_digest as file_digest
