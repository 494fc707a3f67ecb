"""Backward-compatible representation learning: one trainer, one evaluation, every method.

The package is imported part by part (``from compat_lib.losses import build_method``); importing it
alone loads nothing heavy, so that the workflow can read configurations without starting torch.
"""

__version__ = "0.2.0"
