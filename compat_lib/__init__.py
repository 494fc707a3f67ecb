"""Backward-compatible representation learning: one trainer, one evaluation, every method.

Where things are, from the ground up: `config`, `presets` and `files`; `data` (sets, scenarios, batches),
`networks` and `models`; `evaluation` on plain arrays, `adapters`; `old_system`; `losses`, a method a file;
`training` with `optimisation`, `checkpoint` and `distributed`; `runs` and `trained_model`, what a run keeps;
`recipe`, `old_sources`, `measuring` and `experiment`, which puts all of it together; `deploy`,
for people with a service.

The package is imported part by part (``from compat_lib.losses import build_method``); importing it
alone loads nothing heavy, so that the workflow can read configurations without starting torch.
"""

__version__ = "0.2.0"
