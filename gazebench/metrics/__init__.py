"""Metrics: pure functions in ``functional``, torchmetrics classes in ``classes``."""
