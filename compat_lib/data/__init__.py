"""Data sets, scenarios and the input pipeline."""
from .portraits import portraits
def load(name, *, root=None, size=32, seed=0, **options):
    return portraits(root, size=size, seed=seed, **options)
