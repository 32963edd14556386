"""Sharingan: image tokens and a token a person in one transformer, and a decoder conditioned on each person."""

from gazebench.methods.sharingan.method import Sharingan

__all__ = ["Sharingan"]
