"""What the cross-test takes instead of the features as they are: the rows that need no training of a network.

Maps are fitted on the training set, weights of interpolations chosen on the validation images, and all is
measured on the test images, which are queries and gallery here.
"""

from dataclasses import dataclass

from torch import Tensor

from compat_lib.adapters import Interpolation, fit_interpolation, fit_procrustes, fit_ridge
from compat_lib.orthogonal_adapter import fit_orthogonal

Sides = tuple[Tensor, Tensor]  # features of the same images by the old and by the new model
Labelled = tuple[Tensor, Tensor, Tensor]  # the same, and the images' labels


@dataclass(frozen=True, eq=False)
class Adapted:
    """Both sides of a cross-test."""

    query: Tensor  # float32 [N, d]
    gallery: Tensor  # float32 [N, d]
    alpha: float | None = None  # the weight of the new query, where it was chosen


def without_training(train: Labelled, val: Labelled, test: Sides) -> dict[str, Adapted]:
    """The rows of a new model that was trained without the old one, by the adapter's name.

    "ridge" and "procrustes" map the stored gallery to the new space, "ridge-query" and "procrustes-query" the
    queries to the old one. "procrustes-slerp" and "procrustes-midpoint" ask the stored gallery with old and
    rotated new query together, see `adapters.fit_interpolation`: the old model runs at query time.
    "lambda-orthogonal" maps both sides, "lambda-orthogonal-query" the queries alone, see
    `orthogonal_adapter.fit_orthogonal`.

    Args:
        train: float [N, d_old], [N, d_new] features of the training images, and their labels.
        val: those of the validation images, and their labels, by which the weight is chosen.
        test: those of the test images.
    """
    (old, new), (*pairs, _) = test, train
    found = {}
    for name, fit in {"ridge": fit_ridge, "procrustes": fit_procrustes}.items():
        to_old = fit(*pairs[::-1])
        found[name] = Adapted(new, fit(*pairs).apply(old))
        found[f"{name}-query"] = Adapted(to_old.apply(new), old)
    rotation = to_old.matrix
    for name, options in (("slerp", {}), ("midpoint", {"alphas": (0.5,)})):
        between = fit_interpolation(*val, rotation=rotation, **options)
        found[f"procrustes-{name}"] = _asked(between, test, chosen=not options)
    trained = fit_orthogonal(*train)
    query, stored = trained.query(new), trained.cut(old)
    found["lambda-orthogonal"] = Adapted(query, trained.gallery(old))
    found["lambda-orthogonal-query"] = Adapted(query, stored)
    return found


def with_old_query(val: Labelled, cross: Sides) -> dict[str, Adapted]:
    """A trained method's rows when the old model runs at query time beside the new one.

    "with-old-query" is the point between both queries at the weight that finds most of the validation
    images, "midpoint" the one half-way. Where the method transforms stored features, the old query takes the
    same way.

    Args:
        val: the method's gallery form and query form of the validation images, [N, d] each, and their labels.
        cross: its query form and gallery form of the test images.
    """
    query, gallery = cross
    options = {"with-old-query": {}, "midpoint": {"alphas": (0.5,)}}
    return {
        name: _asked(fit_interpolation(*val, compatible=True, **chosen), (gallery, query), chosen=not chosen)
        for name, chosen in options.items()
    }


def _asked(between: Interpolation, test: Sides, chosen: bool) -> Adapted:
    return Adapted(between.apply(*test), test[0], between.alpha if chosen else None)
