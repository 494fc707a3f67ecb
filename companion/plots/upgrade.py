"""Pictures of one upgrade: the toy, and an old model beside its successor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from compat_lib.evaluation.pairs import cosine_histograms, verification

from .histograms import cosine_row, value_histogram
from .maps import JointMap, joint_tsne
from .plane import draw_circle, draw_map
from .style import as_array, say_instead, unit_rows


def toy_row(axes: Sequence[Axes], toy: Any, run: Any, *, title: str = "") -> Sequence[Axes]:
    """Snapshots of a toy training side by side, each with its two tests.

    Args:
        axes: one axis a snapshot, for the last snapshots of the run.
        toy: from companion.toy.make_toy.  run: from companion.toy.train_toy.
        title: what was trained, over the first axis.
    """
    prototypes = toy.system.prototypes()
    first = len(run.steps) - len(axes)
    for ax, at in zip(axes, range(first, len(run.steps)), strict=True):
        draw_circle(
            ax,
            toy.old,
            run.points[at],
            toy.labels,
            prototypes=prototypes,
            classifier=run.classifier[at],
            marked=toy.outlier,
        )
        tests = f"new/new {run.self_test[at]:.0%}, new/old {run.cross_test[at]:.0%}"
        name = f"{title}, " if title and at == first else ""
        ax.set_title(f"{name}step {run.steps[at]}\n{tests}", fontsize=10)
    return axes


def model_cosines(
    axes: Sequence[Axes],
    old: Any,
    new: Any,
    labels: Any,
    *,
    cross: tuple[Any, Any] | None = None,
    far: float = 1e-3,
    bins: int = 100,
) -> Sequence[Axes]:
    """Cosine histograms of old/old, new/old and new/new with the threshold of an operating point.

    Args:
        axes: three axes of one figure.
        old: [N, d_o], new: [N, d_n], embeddings of the same images, normalised here. Where the widths differ
            the middle axis says so.
        labels: [N].
        cross: gallery side and query side of new/old, [N, d] each, where a method cuts, pads or transforms
            features before it compares them; None: `old` and `new` themselves.
        far: false-accept rate of the marked threshold, a fraction.
        bins: over the cosine's range.
    """
    ids = np.arange(len(old))
    gallery, asked = cross or (old, new)
    across = {"gallery": gallery, "gallery_labels": labels, "query_ids": ids, "gallery_ids": ids}
    pairs = {"old_old": (old, {}), "new_old": (asked, across), "new_new": (new, {})}
    placed = dict(zip(pairs, axes, strict=True))
    if gallery.shape[1] != asked.shape[1]:
        say_instead(placed.pop("new_old"), unequal_widths(gallery, asked))
    histograms, thresholds = {}, {}
    for pair in placed:
        query, others = pairs[pair]
        histograms[pair] = cosine_histograms(query, labels, **others, bins=bins)
        threshold = verification(query, labels, **others, fars=(far,)).thresholds[0]
        thresholds[pair] = threshold if np.isfinite(threshold) else None
    label = f"threshold at FAR {far:.0e}".replace("e-0", "e-")
    cosine_row(list(placed.values()), histograms, thresholds, threshold_label=label)
    return axes


def model_map(
    ax: Axes, old: Any, new: Any, labels: Any, *, identities: int = 10, seed: int = 0
) -> JointMap | None:
    """Old and new features of some identities in one t-SNE map; stars are the old features' class means.

    Args:
        ax: axis to draw on; where the widths differ it says so.
        old: [N, d_o], new: [N, d_n], embeddings of the same images, normalised here.
        labels: [N].
        identities: how many are shown, evenly spaced over the sorted labels.
        seed: for t-SNE.

    Returns:
        The map with its agreement number, or None where the widths differ.
    """
    if old.shape[1] != new.shape[1]:
        say_instead(ax, unequal_widths(old, new))
        return None
    labels = as_array(labels)
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(identities, len(present))).round().astype(int)]
    rows = np.isin(labels, shown)
    kept = labels[rows]
    old, new = (unit_rows(as_array(features)[rows].astype(np.float64)) for features in (old, new))
    prototypes = np.stack([old[kept == identity].mean(axis=0) for identity in shown])
    joint = joint_tsne(old, new, prototypes, seed=seed)
    draw_map(ax, joint, kept)
    return joint


def feature_spread(axes: Sequence[Axes], models: Mapping[str, Any], labels: Any) -> Sequence[Axes]:
    """How long the embeddings of each model are, and how tightly each identity holds together.

    Args:
        axes: two axes: lengths, and cosines with the mean of the identity's other images.
        models: name -> embeddings [N, d], not normalised; names as in value_histogram.
        labels: [N]; identities with one image are left out on the right.
    """
    labels = np.unique(as_array(labels), return_inverse=True)[1]
    lengths, cosines = {}, {}
    for name, embeddings in models.items():
        embeddings = as_array(embeddings).astype(np.float64)
        lengths[name] = np.linalg.norm(embeddings, axis=1)
        features = unit_rows(embeddings)
        sums = np.zeros((labels.max() + 1, features.shape[1]))
        np.add.at(sums, labels, features)
        several = np.bincount(labels)[labels] > 1
        others = unit_rows(sums[labels] - features)
        cosines[name] = (features * others).sum(axis=1)[several]
    value_histogram(axes[0], lengths, xlabel="length of an embedding")
    value_histogram(axes[1], cosines, xlabel="cosine to the mean of the identity's other images")
    axes[0].get_legend().remove()  # the right axis has the same one
    return axes


def unequal_widths(old: Any, new: Any) -> str:
    """Why there is no new/old here, as a sentence."""
    return (
        f"no new/old: old features have {old.shape[1]} coordinates,\nnew ones {new.shape[1]}; a cosine needs "
        "equal widths\n(set new_width to the old width)"
    )
