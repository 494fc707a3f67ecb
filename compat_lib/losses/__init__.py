"""Compatibility methods by name. A new file in this folder registers itself; nothing here needs editing."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

from compat_lib.losses import task
from compat_lib.losses.base import METHODS, CompatibilityLoss, Step
from compat_lib.losses.heads import Classifier
from compat_lib.names import check_choice, instead
from compat_lib.old_system import OldSystem

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
for _name in sorted(METHODS):  # tables list them in this order, whichever file imports another
    METHODS[_name] = METHODS.pop(_name)

__all__ = ["METHODS", "Classifier", "CompatibilityLoss", "Step", "build_method", "method_options"]


def find_method(name: str) -> type[CompatibilityLoss]:
    """The class of the method called `name`; ValueError with the list of all when there is none."""
    return METHODS[check_choice("the method", name, METHODS)]


def method_options(name: str) -> dict[str, object]:
    """Options of a method with their defaults.

    >>> method_options("weakened_l2")
    {'weight': 10.0, 'threshold': 0.6}
    """
    method = find_method(name)
    if "__init__" not in method.__dict__:  # the base's own arguments are not options
        return {}
    parameters = inspect.signature(method.__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def build_method(
    name: str,
    old: OldSystem | None,
    classifier: Classifier,
    *,
    task_loss: str = "none",
    **options: object,
) -> CompatibilityLoss:
    """A method ready for training; the classifier becomes part of it.

    Args:
        task_loss: "none", or "triplet" or "circle" (see compat_lib.losses.task) on the embedded rows, as term
            "task" beside the classification.
        options: see `method_options`.
    Raises:
        ValueError: "The method mixbct has no option 'ratio'. Options: mix_ratio, credible_share, ...", an
            option's own refusal, or what the old system lacks.
    """
    method = find_method(name)
    allowed = method_options(name)
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"The method {name} has no option {option!r}. Options: {instead(option, allowed)}."
            )
    loss = method(old, classifier, **options)
    if check_choice("task_loss", task_loss, ("none", *task.KINDS)) != "none":
        loss.task = task.task_loss(task_loss)
        loss.weights["task"] = 1.0
    return loss
