"""Metrics: pure functions with the torchmetrics class of each beside it, protocols, and the scorer."""
