"""Asking vision-language models: one interface over servers and in-process models, and a store of their raw answers."""
