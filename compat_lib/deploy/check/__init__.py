"""Is a new model compatible with the old one? Features of both in; a verdict, its numbers and its noise out.

    result = check_compatibility(old_features, new_features, labels)
    result.verdict, result.paragraph

`python -m compat_lib check old.npz new.npz --report page.html` asks the same of two files.
"""

from compat_lib.deploy.check.compatibility import check_compatibility, check_sides
from compat_lib.deploy.check.files import read_side
from compat_lib.deploy.check.result import CompatibilityCheck
from compat_lib.deploy.check.sides import Side, Source, UnusableInput, checked_side

__all__ = [
    "CompatibilityCheck",
    "Side",
    "Source",
    "UnusableInput",
    "check_compatibility",
    "check_sides",
    "checked_side",
    "read_side",
]
