"""Templates of the IJB protocols: images pooled by medium and by template, and the three tests on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.inputs import as_tensor, names_or_numbers, slices, unit_length
from compat_lib.evaluation.records import PAIRS, Readable, Records

ROWS = 8192  # images that are worked on together


class Templates(NamedTuple):
    """Template ids and one row of features for each."""

    ids: np.ndarray  # int64 or names [T], sorted
    features: Any  # float64 [T, D] of unit length (or zero), array or tensor


@dataclass(frozen=True)
class TemplateTests(Readable):
    """Results of one protocol for old/old, new/old (enrolled by the old model, new probes) and new/new."""

    results: dict[tuple[str, str], Any]  # (query, gallery) -> result, None where not measured

    @property
    def records(self) -> Records:
        """Those of the results, with the names of the models; value None where not measured."""
        blank = self.results["new", "new"].records.changed(value=None)
        found = []
        for (query, gallery), result in self.results.items():
            there = blank if result is None else result.records
            found += there.changed(query=query, gallery=gallery)
        return Records(found)


def image_features(features: Any, flipped: Any = None, detector_scores: Any = None) -> Any:
    """Return the features of images as the IJB protocol pools them.

    Source: the evaluation of MixBCT (arXiv 2308.06948), whose default is called "N0 D1 F1": the sum of the
    features of an image and of its mirror image, not normalised, times the confidence of the face detector.
    Deviation: flip test (F0) or weights (D0) are off when their argument is left out, where the published
    single run ignores its switches; features are never normalised (N1).

    Args:
        features: [N, D] of the images, not normalised.
        flipped: [N, D] of the mirrored images in the same order, added; None: no flip test.
        detector_scores: float [N], 0 or more, usually at most 1; None: no weights.

    Returns:
        [N, D], of the kind and on the device of `features`; float64 for float64 and whole numbers, else
        float32.

    >>> image_features([[1.0, 0.0]], [[2.0, 4.0]], [0.5]).tolist()
    [[1.5, 2.0]]
    """
    rows = as_tensor(features, "features")
    mirrored = (
        torch.zeros(1, 1).expand(rows.shape) if flipped is None else as_tensor(flipped, "flipped features")
    )
    weights = np.ones(len(rows)) if detector_scores is None else np.asarray(detector_scores, np.float64)
    if mirrored.shape != rows.shape or weights.shape != (len(rows),) or not (weights >= 0).all():
        raise ValueError(
            f"features {tuple(rows.shape)}, flipped ones {tuple(mirrored.shape)} and detector scores "
            f"{weights.shape} were given; give one row and one score from 0 for each image"
        )
    weight = torch.from_numpy(weights).to(rows.device)
    single = rows.dtype in (torch.float16, torch.bfloat16, torch.float32)
    result = torch.empty(rows.shape, dtype=torch.float32 if single else torch.float64, device=rows.device)
    for part in slices(len(rows), ROWS):
        block = rows[part].double() + mirrored[part].to(rows.device).double()
        result[part] = block * weight[part, None]
    return result if isinstance(features, Tensor) else result.numpy()


def pool_templates(features: Any, templates: Any, media: Any) -> Templates:
    """Return one row of unit length for each template, ordered by template id.

    The images of one medium of a template (the frames of a video) are averaged, the media of a template are
    summed, and the sum is scaled to unit length. A medium belongs to its template: the same media id in two
    templates is two media. Sums that cancel to zero stay zero.

    Source: the IJB-B and IJB-C protocols as MixBCT (arXiv 2308.06948) computes them. Deviation: averages and
    sums are float64 here, there of the features' type.

    Args:
        features: [N, D] of the images, such as those of `image_features`.
        templates, media: [N], the template and the medium of each image.

    Returns:
        ids (sorted) and features (float64 [T, D], of the kind and on the device of `features`).

    >>> images = [[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [5.0, 0.0]]
    >>> pooled = pool_templates(images, templates=[4, 4, 4, 2], media=[1, 1, 8, 1])
    >>> pooled.ids.tolist(), pooled.features.round(3).tolist()  # template 4: (3 + 1)/2 beside 2
    ([2, 4], [[1.0, 0.0], [0.707, 0.707]])
    """
    rows = as_tensor(features, "features")
    templates = names_or_numbers(templates, "templates", len(rows))
    ids, template = np.unique(templates, return_inverse=True)
    kinds, medium = np.unique(names_or_numbers(media, "media", len(rows)), return_inverse=True)
    _, group, sizes = np.unique(template * len(kinds) + medium, return_inverse=True, return_counts=True)
    pooled = torch.zeros(len(ids), rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in slices(len(rows), ROWS):
        share = torch.from_numpy(1.0 / sizes[group[part]]).to(rows.device)
        place = torch.from_numpy(template[part]).to(rows.device)
        pooled.index_add_(0, place, rows[part].double() * share[:, None])
    broken = int((~torch.isfinite(pooled)).any(1).sum())
    if broken:
        raise ValueError(
            f"images of {broken} of the {len(ids)} templates hold NaN or infinite values; leave them out"
        )
    pooled = unit_length(pooled)
    return Templates(ids, pooled if isinstance(features, Tensor) else pooled.numpy())


def three_tests(
    old: Templates | None, new: Templates, evaluate: Callable[[Templates, Templates], Any]
) -> TemplateTests:
    """Return `evaluate(enrolled, probe)` for old/old, new/old (of equal widths only) and new/new.

    `old` None: only new/new is measured. What `evaluate` returns has `records`.
    """
    sides = dict(zip(PAIRS, ((old, old), (old, new), (new, new)), strict=True))
    results = {}
    for pair, (enrolled, probe) in sides.items():
        fits = enrolled is not None and np.shape(enrolled.features)[1] == np.shape(probe.features)[1]
        results[pair] = evaluate(enrolled, probe) if fits else None
    return TemplateTests(results)


def positions(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each of `wanted` stands in `ids`, -1 where it does not.

    >>> positions(np.array([5, 3]), np.array([3, 4, 5, 3])).tolist()
    [1, -1, 0, 1]
    """
    if (ids.dtype.kind in "US") != (wanted.dtype.kind in "US"):
        raise ValueError("some ids are names and those that they refer to are numbers; use one kind for both")
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[place] == wanted, place, -1)


def found(ids: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    """Return where each of `wanted` stands in `ids`, or raise a ValueError that names one that is missing."""
    place = positions(ids, wanted)
    if (place < 0).any():
        missing = np.unique(wanted[place < 0])
        raise ValueError(
            f"{what} names {len(missing)} templates that no image has, such as {missing[0]}; pool "
            "the images of every template that the lists name"
        )
    return place


def checked_templates(templates: Templates, what: str) -> tuple[np.ndarray, Tensor]:
    """Return the ids and float64 rows of a user's templates.

    Rows that are neither of unit length (within 1 %) nor zero are refused, and an id with two rows.
    """
    rows = as_tensor(templates.features, what).double()
    length = torch.linalg.vector_norm(rows, dim=1)
    wrong = ~(((length - 1).abs() < 0.01) | (length == 0))  # NaN and infinity compare false
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of the {len(rows)} rows of the {what} are not finite or not of unit length; "
            "scores are inner products, so scale every row to length 1 first, as pool_templates does"
        )
    ids = names_or_numbers(templates.ids, f"ids of the {what}", len(rows))
    once, counts = np.unique(ids, return_counts=True)
    if len(once) < len(ids):
        raise ValueError(
            f"{what} hold the id {once[counts.argmax()]} {counts.max()} times; pool_templates makes one row "
            "of each"
        )
    return ids, rows
