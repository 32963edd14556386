"""Parts that several methods share: backbones and a feature cache, Qwen3-VL and decoding, losses, optimizers."""
