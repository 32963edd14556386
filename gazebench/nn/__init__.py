"""Shared by several methods: backbones and a cache of their features, Qwen3-VL and decoding, losses, optimizers."""
