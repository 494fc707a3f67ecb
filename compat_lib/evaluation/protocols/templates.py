"""Templates of the IJB protocols: images pooled by medium and by template, and the three tests on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.compatibility import PAIRS
from compat_lib.evaluation.inputs import as_tensor, plain_array, real_numbers, two_parts

ROWS = 8192  # images that are worked on together


class Templates(NamedTuple):
    """Template ids and one row of features for each."""

    ids: np.ndarray  # int64 or names [T], sorted
    features: Any  # float64 [T, D] of unit length (or zero), array or tensor


@dataclass(frozen=True)
class TemplateTests:
    """Results of one protocol for old/old, new/old (enrolled by the old model, new probes) and new/new."""

    results: dict[str, Any]  # "old_old", "new_old", "new_new" -> result, None where not measured
    note: str

    @property
    def metrics(self) -> dict[str, float | None]:
        """Flat names, such as "new_old/tar@far=1e-4"; None where not measurable."""
        names = self.results["new_new"].metrics
        return {
            f"{pair}/{name}": None if result is None else result.metrics[name]
            for pair, result in self.results.items()
            for name in names
        }

    def summary(self) -> str:
        """Return one line for each pair of models."""
        return "\n".join(
            f"{pair.replace('_', '/')}: {'not measured' if result is None else result.summary()}"
            for pair, result in self.results.items()
        )


def image_features(
    features: Any, flipped: Any = None, detector_scores: Any = None, *, normalise: bool = False
) -> Any:
    """Return the features of images as the IJB protocol pools them.

    Source: the evaluation of MixBCT (arXiv 2308.06948), whose default is called "N0 D1 F1": the sum of the
    features of an image and of its mirror image, not normalised, times the confidence of the face detector.
    A switch is off when its argument is left out. The published single run ignores its switches and always
    computes N0 D1 F1; here they act.

    Args:
        features: float [N, D] of the images, not normalised; NumPy array or torch tensor.
        flipped: float [N, D] of the mirrored images in the same order, added; None: no flip test (F0).
        detector_scores: float [N], 0 or more, usually at most 1; None: no weights (D0).
        normalise: scale rows to unit length before they are weighted (N1). A row of zeros stays zero.

    Returns:
        [N, D], of the kind and on the device of `features`; float64 for float64 and whole numbers, else
        float32.

    Raises:
        ValueError: "the features have shape ...", "the flipped features have shape ...", "... detector scores
            for ... images", "... of the 5 detector scores are negative, NaN or infinite ...".

    >>> image_features([[1.0, 0.0]], [[2.0, 4.0]], [0.5]).tolist()
    [[1.5, 2.0]]
    >>> image_features([[1.0, 0.0]], [[2.0, 4.0]], normalise=True).round(1).tolist()
    [[0.6, 0.8]]
    """
    rows = real_rows(features, "features")
    mirrored = None if flipped is None else real_rows(flipped, "flipped features")
    if mirrored is not None and mirrored.shape != rows.shape:
        raise ValueError(
            f"the flipped features have shape {tuple(mirrored.shape)} and the features {tuple(rows.shape)}; "
            "give one row for the mirror image of each image, by the same model"
        )
    weights = None if detector_scores is None else _weights(detector_scores, len(rows)).to(rows.device)
    single = rows.dtype in (torch.float16, torch.bfloat16, torch.float32)
    result = torch.empty(rows.shape, dtype=torch.float32 if single else torch.float64, device=rows.device)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        block = rows[part].double()
        if mirrored is not None:
            block = block + mirrored[part].to(rows.device).double()
        if normalise:
            block = unit_length(block)
        result[part] = block if weights is None else block * weights[part, None]
    return result if isinstance(features, Tensor) else result.numpy()


def pool_templates(features: Any, templates: Any, media: Any, *, keep: Any = None) -> Templates:
    """Return one row of unit length for each template, ordered by template id.

    The images of one medium of a template (the frames of a video) are averaged, the media of a template are
    summed, and the sum is scaled to unit length. A medium belongs to its template: the same media id in two
    templates is two media. Sums that cancel to zero stay zero.

    Source: the IJB-B and IJB-C protocols as MixBCT (arXiv 2308.06948) computes them. Deviation: averages and
    sums are float64 here, there of the features' type.

    Args:
        features: float [N, D] of the images, such as those of `image_features`; NumPy array or torch tensor.
        templates: whole numbers or names [N], the template of each image.
        media: whole numbers or names [N], the medium of each image.
        keep: ids of the templates that are wanted, in any order and number; None: all.

    Returns:
        ids (int64 or names [T], sorted) and features (float64 [T, D], of the kind and on the device of
        `features`).

    Raises:
        ValueError: "there are ... media for ... images", "... of the 5 images of the templates hold NaN or
            infinite values ...", "keep names 2 templates that no image has, such as 7 ...".

    >>> images = [[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [5.0, 0.0]]
    >>> pooled = pool_templates(images, templates=[4, 4, 4, 2], media=[1, 1, 8, 1])
    >>> pooled.ids.tolist(), pooled.features.round(3).tolist()  # template 4: (3 + 1)/2 beside 2
    ([2, 4], [[1.0, 0.0], [0.707, 0.707]])
    """
    rows = real_rows(features, "features")
    templates = checked_ids(templates, "templates", len(rows), "images")
    media = checked_ids(media, "media", len(rows), "images")
    ids, template = np.unique(templates, return_inverse=True)
    if keep is not None:
        keep = np.unique(checked_ids(keep, "templates to keep"))
        if not len(keep):
            raise ValueError("keep is empty; name at least one template, or leave it out to pool them all")
        place = np.full(len(ids), -1)
        place[found(ids, keep, "keep")] = np.arange(len(keep))
        ids, template = keep, place[template]
    kinds, medium = np.unique(media, return_inverse=True)
    _, group, sizes = np.unique(template * len(kinds) + medium, return_inverse=True, return_counts=True)
    pooled = torch.zeros(len(ids), rows.shape[1], dtype=torch.float64, device=rows.device)
    broken = 0
    for start in range(0, len(rows), ROWS):
        wanted = start + np.flatnonzero(template[start : start + ROWS] >= 0)
        block = rows[torch.from_numpy(wanted).to(rows.device)].double()
        broken += int((~torch.isfinite(block)).any(1).sum())
        share = torch.from_numpy(1.0 / sizes[group[wanted]]).to(rows.device)
        pooled.index_add_(0, torch.from_numpy(template[wanted]).to(rows.device), block * share[:, None])
    if broken:
        raise ValueError(
            f"{broken} of the {int((template >= 0).sum())} images of the templates hold NaN or infinite "
            "values; look for a diverged model or a corrupt image and leave these images out"
        )
    pooled = unit_length(pooled)
    return Templates(ids, pooled if isinstance(features, Tensor) else pooled.numpy())


def three_tests(
    old: Templates | None, new: Templates, evaluate: Callable[[Templates, Templates], Any]
) -> TemplateTests:
    """Return `evaluate(enrolled, probe)` for old/old, new/old and new/new.

    Args:
        old: templates by the old model, or None: only new/new is measured.
        new: templates by the new model.
        evaluate: the protocol; its result has `metrics` and `summary()`.
    """
    sides: list[tuple[Templates, Templates] | None] = [None, None, (new, new)]
    note = "Only new/new was measured: no templates of an old model were given."
    if old is not None:
        rows = [two_parts(side, name, "ids, features")[1] for side, name in ((old, "old"), (new, "new"))]
        widths = [real_rows(side, "templates").shape[1] for side in rows]
        same = widths[0] == widths[1]
        sides[:2] = (old, old), (old, new) if same else None
        note = "new/old: enrolled templates by the old model, probes by the new."
        if not same:
            note = f"new/old was not measured: old features have {widths[0]} columns and new {widths[1]}."
    results = {
        pair: None if side is None else evaluate(*side) for pair, side in zip(PAIRS, sides, strict=True)
    }
    return TemplateTests(results, note)


def real_rows(features: Any, what: str) -> Tensor:
    """Return features as a detached tensor [N, D] of real numbers, or raise ValueError."""
    if not isinstance(features, Tensor):
        array = plain_array(features)
        if isinstance(features, np.ma.MaskedArray):  # what is masked is not there
            array = features.astype(np.float64).filled(np.nan)
        real = array.dtype.kind in "fiu"
        features = as_tensor(array) if real else torch.zeros(array.shape, dtype=torch.bool)
    if features.ndim != 2 or 0 in features.shape or features.is_complex() or features.dtype == torch.bool:
        raise ValueError(
            f"the {what} have shape {tuple(features.shape)} or are not real numbers; "
            "give one row of real numbers for each image or template: [N, D] with N and D at least 1"
        )
    return features.detach()


def unit_length(rows: Tensor) -> Tensor:
    """Return float64 rows scaled to length 1; rows of zeros stay zero."""
    # Dividing by the largest entry first: squares of very large or very small numbers leave float64.
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)


def checked_ids(values: Any, what: str, length: int | None = None, of: str = "rows") -> np.ndarray:
    """Return ids as int64 or names [N], or raise ValueError."""
    array = plain_array(values)
    if array.ndim != 1 or array.dtype.kind not in "iuUS" or (array.dtype.kind == "u" and (array >> 63).any()):
        raise ValueError(
            f"the {what} have shape {array.shape} and type {array.dtype}; "
            "give one whole number below 2**63 (or name) for each"
        )
    if length is not None and len(array) != length:
        raise ValueError(f"there are {len(array)} {what} for {length} {of}; give one each")
    return array.astype(np.int64 if array.dtype.kind in "iu" else str)


def positions(ids: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    """Return where each of `wanted` stands in `ids`, -1 where it does not.

    Raises:
        ValueError: "... are names and the ids that they refer to are numbers ..." or the reverse.

    >>> positions(np.array([5, 3]), np.array([3, 4, 5, 3]), "first").tolist()
    [1, -1, 0, 1]
    """
    if (ids.dtype.kind == "U") != (wanted.dtype.kind == "U"):
        kinds = ("names", "numbers") if wanted.dtype.kind == "U" else ("numbers", "names")
        raise ValueError(
            f"the ids of {what} are {kinds[0]} and the ids that they refer to are {kinds[1]}; use one kind "
            "for both"
        )
    order = np.argsort(ids, kind="stable")
    place = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[place] == wanted, place, -1)


def found(ids: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    """Return where each of `wanted` stands in `ids`; all must be there.

    Raises:
        ValueError: "... names 2 templates that no image has, such as 7 ...".
    """
    place = positions(ids, wanted, what)
    if (place < 0).any():
        missing = np.unique(wanted[place < 0])
        raise ValueError(
            f"{what} names {len(missing)} templates that no image has, such as {missing[0]}; pool the images "
            "of every template that the lists name"
        )
    return place


def checked_templates(templates: Templates, what: str) -> tuple[np.ndarray, Tensor]:
    """Return the ids [T] and the float64 rows [T, D] of pooled templates, or raise ValueError."""
    ids, features = two_parts(templates, what, "ids, features")
    rows = unit_rows_only(features, f"{what} templates")
    ids = checked_ids(ids, f"{what} template ids", len(rows), "templates")
    if len(np.unique(ids)) != len(ids):
        raise ValueError(
            f"{len(ids) - len(np.unique(ids))} ids of the {what} templates occur more than once; pool the "
            "images of a template into one row with pool_templates"
        )
    return ids, rows


def unit_rows_only(features: Any, what: str) -> Tensor:
    """Return features as float64 rows that are of unit length (within 1 %) or zero, or raise ValueError."""
    rows = real_rows(features, what).double()
    length = torch.linalg.vector_norm(rows, dim=1)
    wrong = ~(((length - 1).abs() < 0.01) | (length == 0))  # NaN and infinity compare false
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of the {len(rows)} rows of the {what} are not finite or not of unit length; "
            "scores are inner products, so scale every row to length 1 first, as pool_templates does"
        )
    return rows


def _weights(detector_scores: Any, images: int) -> Tensor:
    weights = real_numbers(detector_scores, "detector scores")
    if weights.shape != (images,):
        raise ValueError(
            f"there are detector scores of shape {weights.shape} for {images} images; give one for each"
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of the {images} detector scores are negative, NaN or infinite; give confidences, "
            "usually from 0 to 1"
        )
    return torch.from_numpy(weights)
