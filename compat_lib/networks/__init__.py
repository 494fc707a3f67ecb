"""Backbones, and the weights that they start from."""
