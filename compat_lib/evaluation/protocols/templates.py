"""The IJB protocols: images pooled to templates, 1:1 verification on a list of pairs, 1:N identification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from compat_lib.evaluation.counting import most_accepted
from compat_lib.evaluation.inputs import (
    as_tensor,
    fractions,
    names_or_numbers,
    plain_array,
    slices,
    unit_length,
    whole_numbers,
)
from compat_lib.evaluation.records import Record, Records, rates

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FPIRS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RANKS = (1, 5, 10)
ROWS = 8192  # images that are worked on together
VALUES = 2**18  # numbers of one side that are multiplied together
SCORES = 2**20  # scores that are held together
EQUAL = 1e-12  # scores that differ by no more are tied


class Templates(NamedTuple):
    """Template ids and one row of features for each."""

    ids: np.ndarray  # int64 or names [T], sorted
    features: Any  # float64 [T, D] of unit length (or zero), array or tensor


def pool_templates(features: Any, templates: Any, media: Any, detector: Any = None) -> Templates:
    """Return one row of unit length for each template, ordered by template id.

    The features of an image are weighted by the confidence of the face detector; the images of one medium of
    a template (the frames of a video) are averaged, the media of a template are summed, and the sum is scaled
    to unit length. A medium belongs to its template: the same media id in two templates is two media. Sums
    that cancel to zero stay zero.

    Source: the IJB-B and IJB-C protocols as MixBCT (arXiv 2308.06948) computes them, "N0 D1 F1": features are
    not normalised, and those of the mirrored image were added. Deviation: averages and sums are float64 here,
    there of the features' type.

    Args:
        features: [N, D] of the images.
        templates, media: [N], the template and the medium of each image.
        detector: float [N], 0 or more, usually at most 1; None: every image weighs 1.

    Returns:
        ids (sorted) and features (float64 [T, D], of the kind and on the device of `features`).

    >>> images = [[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [5.0, 0.0]]
    >>> pooled = pool_templates(images, templates=[4, 4, 4, 2], media=[1, 1, 8, 1])
    >>> pooled.ids.tolist(), pooled.features.round(3).tolist()  # template 4: (3 + 1)/2 beside 2
    ([2, 4], [[1.0, 0.0], [0.707, 0.707]])
    """
    rows = as_tensor(features, "features")
    weights = np.ones(len(rows)) if detector is None else np.asarray(detector, np.float64)
    if weights.shape != (len(rows),) or not (weights >= 0).all():
        raise ValueError(
            f"there are detector scores of shape {weights.shape} for {len(rows)} images; give one from 0 each"
        )
    weight = torch.from_numpy(weights).to(rows.device)
    templates = names_or_numbers(templates, "templates", len(rows))
    ids, template = np.unique(templates, return_inverse=True)
    kinds, medium = np.unique(names_or_numbers(media, "media", len(rows)), return_inverse=True)
    _, group, sizes = np.unique(template * len(kinds) + medium, return_inverse=True, return_counts=True)
    # As published, weighted features are float32, but where they come in double precision.
    kept = torch.float32 if rows.is_floating_point() and rows.dtype != torch.float64 else torch.float64
    pooled = torch.zeros(len(ids), rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in slices(len(rows), ROWS):
        weighted = (rows[part].double() * weight[part, None]).to(kept)
        share = torch.from_numpy(1.0 / sizes[group[part]]).to(rows.device)
        place = torch.from_numpy(template[part]).to(rows.device)
        pooled.index_add_(0, place, weighted.double() * share[:, None])
    broken = int((~torch.isfinite(pooled)).any(1).sum())
    if broken:
        raise ValueError(
            f"images of {broken} of the {len(ids)} templates hold NaN or infinite values; leave them out"
        )
    pooled = unit_length(pooled)
    return Templates(ids, pooled if isinstance(features, Tensor) else pooled.numpy())


def measure_lists(enrolled: Templates, probe: Templates, lists: Mapping[str, Tensor]) -> Records:
    """Return both protocols' records by a data set's lists, int64 [n, 2 or 3], as `data.ijb` has them."""
    found = verification_1_to_1(enrolled, probe, *lists["pairs"].numpy().T)
    if "probes" in lists:
        known = (tuple(lists[name].numpy().T) for name in ("gallery1", "gallery2", "probes"))
        found += identification_1_to_n(enrolled, probe, *known)
    return found


def verification_1_to_1(
    enrolled: Templates,
    probe: Templates,
    first: Any,
    second: Any,
    same: Any,
    *,
    fars: Sequence[float] = FARS,
    conservative: bool = False,
) -> Records:
    """Return "tar@far=1e-4" and so on of a list of template pairs, and "auc", ties counting half.

    TAR is in the reading "nearest" of the published IJB tools: at the point of the ROC curve whose false
    accept rate is nearest to f, which may be above f; among points of equal rate the largest TAR, of two
    rates equally near the larger one. The points are those of scikit-learn's `roc_curve` without options,
    which leaves out points amid a straight run: the nearest one that is left can lie far from f. A FAR below
    one impostor pair is not measurable: None.

    Source: the IJB evaluation of MixBCT (arXiv 2308.06948).

    Args:
        enrolled, probe: templates as `pool_templates` returns them; in a cross-test the enrolled ones are the
            old model's.
        first, second: template ids [P] of the pairs, among the enrolled and among the probe templates.
        same: True or 1 [P] where the pair shows one identity, else False or 0.
        conservative: the largest TAR of all points whose rate is not above f, as tables of all pairs have it.

    >>> old = Templates(np.array([1, 2, 3]), [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> found = verification_1_to_1(old, old, [1, 1, 2], [2, 3, 3], [1, 0, 0], fars=[0.5])
    >>> found.value(None, None, "tar@far=5e-1"), found.value(None, None, "auc")
    (1.0, 0.5)
    """
    fars = fractions(fars, "a FAR")
    scores = pair_scores(enrolled, probe, first, second)
    same = plain_array(same)
    same = np.array(same.tolist()) if same.dtype == object else same
    if same.shape != scores.shape or same.dtype.kind not in "biuf" or not np.isin(same, (0, 1)).all():
        raise ValueError(
            f"same has shape {same.shape} and type {same.dtype} for {len(scores)} pairs; give True or 1 "
            "where a pair shows one identity, else False or 0"
        )
    same = same.astype(bool)
    impostors = int((~same).sum())
    if impostors in (0, len(same)):
        raise ValueError(
            f"there are {len(same) - impostors} genuine and {impostors} impostor pairs; give some of both"
        )
    far, tar, _ = roc_curve(same, scores, drop_intermediate=not conservative)
    # Backwards, so that the first of equals has the larger rates.
    chosen = [len(far) - 1 - int(np.argmin(np.abs(far[::-1] - level))) for level in fars]
    if conservative:
        chosen = np.searchsorted(far, fars, "right") - 1
    values = rates("tar@far", fars, tar[chosen].tolist(), most_accepted(np.array(fars), impostors) >= 1)
    values["auc"] = float(roc_auc_score(same, scores))
    return Records(Record(None, None, *one) for one in values.items())


def pair_scores(enrolled: Templates, probe: Templates, first: Any, second: Any) -> np.ndarray:
    """Return the inner product of every pair of a list, float64 [P]; arguments as in `verification_1_to_1`.

    Memory grows with the templates and with the pairs (8 bytes each), never with pairs x width. A pair of
    given rows has the same score wherever it stands in the list.
    """
    first = names_or_numbers(first, "first template ids")
    second = names_or_numbers(second, "second template ids", len(first))
    left, rows = _found(enrolled, first, "enrolled templates", "first")
    right, others = _found(probe, second, "probe templates", "second")
    left, rows = left.to(right.device), rows.to(right.device)
    # Into one array: pieces that stayed between freed ones would scatter the heap, gigabytes for IJB-C.
    scores = torch.empty(len(first), dtype=torch.float64, device=right.device)
    for part in slices(len(first), VALUES // left.shape[1]):
        # Not a matrix product: its rounding would depend on where a pair stands.
        scores[part] = (left[rows[part]] * right[others[part]]).sum(1)
    return scores.cpu().numpy()


def identification_1_to_n(
    enrolled: Templates,
    probe: Templates,
    gallery_1: tuple[Any, Any],
    gallery_2: tuple[Any, Any],
    probes: tuple[Any, Any],
    *,
    fpirs: Sequence[float] = FPIRS,
    ranks: Sequence[int] = RANKS,
) -> Records:
    """Return IJB's 1:N identification: mixed probes against two galleries, and against both stacked.

    For each gallery, the probes of its subjects are mates and all others non-mates; `search` defines hits and
    TPIR. "tpir@fpir=1e-2" is the mean of both galleries, None where one has none. "top1" is (hits in gallery
    1 + hits in gallery 2) / (probe templates), the published form: a probe in neither gallery is a miss.
    "stacked_top1" is the same share of one gallery made of both.

    Source: the IJB evaluation of MixBCT (arXiv 2308.06948). Deviations: ties (see `search`); input
    that breaks its assumptions is refused: one template for each subject of a gallery, no subject in both.

    Args:
        enrolled, probe: as in `verification_1_to_1`; the galleries are looked up in the enrolled templates.
        gallery_1, gallery_2, probes: (template ids, subjects), one entry for each image or for each template;
            reduced to unique templates.

    Raises:
        ValueError: also for a template with two subjects or without images.

    >>> rows = Templates(np.array([1, 2, 3, 4]), [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]])
    >>> found = identification_1_to_n(rows, rows, ([1], [50]), ([2], [60]), ([3, 4], [50, 60]), fpirs=[1])
    >>> found.value(None, None, "tpir@fpir=1e0"), found.value(None, None, "top1")
    (1.0, 1.0)
    """
    fpirs, ranks = fractions(fpirs, "an FPIR"), whole_numbers(ranks, "the ranks")
    templates, subjects = _template_subjects(probes, "the probes")
    rows, place = _found(probe, templates, "probe templates", "the probe list")
    asked = rows[place]
    lists = [_template_subjects(gallery_1, "gallery 1"), _template_subjects(gallery_2, "gallery 2")]
    lists.append(tuple(np.concatenate(both) for both in zip(*lists, strict=True)))
    tests = []
    for (known, own), what in zip(lists, ("gallery 1", "gallery 2", "both galleries"), strict=True):
        rows, place = _found(enrolled, known, "enrolled templates", what)
        tests.append(search((rows[place], own), (asked, subjects), fpirs, ranks, what))
    (tpir_1, hits_1), (tpir_2, hits_2), (_, stacked) = tests
    tpir = (tpir_1 + tpir_2) / 2
    values = rates("tpir@fpir", fpirs, tpir.tolist(), ~np.isnan(tpir))
    values |= {f"top{k}": (hits_1[k] + hits_2[k]) / len(asked) for k in ranks}
    values |= {f"stacked_top{k}": stacked[k] / len(asked) for k in ranks}
    return Records(Record(None, None, *one) for one in values.items())


def search(
    gallery: tuple[Tensor, np.ndarray],
    probe: tuple[Tensor, np.ndarray],
    fpirs: Sequence[float],
    ranks: Sequence[int],
    what: str = "the gallery",
) -> tuple[np.ndarray, dict[int, int]]:
    """Return TPIR float64 [FPIRs] and the hits at each k of probes in a gallery of one entry a subject.

    Both sides are unit rows, float64, and the subject of each; scores are inner products. A probe whose
    subject is in the gallery is a mate probe, every other a non-mate.

    - hits at k: mate probes whose entry is among the k most similar. Ties are pessimistic: every entry tied
      with the mate's is ranked before it (the published code leaves ties to an unstable sort).
    - threshold at FPIR f: of the n non-mates' top scores, sorted descending from place 0, the one at place
      floor(n f) - 1, floor(n f) being the largest whole k with k / n <= f.
    - TPIR(f): the share of the mate probes whose mate's score is above that of every other entry and above
      the threshold, both strictly.

    Scores that differ by 1e-12 or less are tied: the last digit of a product depends on where a row stands.
    TPIR is nan without mate probes, and at an FPIR below one non-mate probe.
    """
    (gallery, known), (probe, asking) = gallery, probe
    mate = _positions(known, asking, f"the subjects of {what}")
    mates = mate >= 0
    # For each probe: its mate's score, the best other one, and how many others score at least the mate's.
    own, best, ahead = np.full(len(mate), np.nan), np.empty(len(mate)), np.empty(len(mate), np.int64)
    gallery = gallery.to(probe.device)
    for rows in slices(len(mate), SCORES // len(gallery)):
        scores = (probe[rows] @ gallery.T).cpu().numpy()
        place = np.flatnonzero(mates[rows]), mate[rows][mates[rows]]
        own[rows][mates[rows]] = scores[place]
        scores[place] = -np.inf
        best[rows] = scores.max(1)
        ahead[rows] = (scores >= own[rows, None] - EQUAL).sum(1)
    identified = np.sort(own[mates & (own > best + EQUAL)])
    strangers = np.sort(best[~mates])[::-1]
    allowed, tpir = most_accepted(np.array(fpirs), len(strangers)), np.full(len(fpirs), np.nan)
    if mates.any():
        threshold = strangers[allowed[allowed >= 1] - 1] + EQUAL
        above = len(identified) - np.searchsorted(identified, threshold, "right")
        tpir[allowed >= 1] = above / mates.sum()
    return tpir, {k: int((ahead[mates] < k).sum()) for k in ranks}


def _template_subjects(pairs: tuple[Any, Any], what: str) -> tuple[np.ndarray, np.ndarray]:
    # The unique templates of a list by image, sorted, and the subject of each.
    templates = names_or_numbers(pairs[0], f"template ids of {what}")
    subjects = names_or_numbers(pairs[1], f"subjects of {what}", len(templates))
    unique, first, inverse = np.unique(templates, return_index=True, return_inverse=True)
    other = np.flatnonzero(subjects[first][inverse] != subjects)
    if len(other):
        raise ValueError(
            f"template {templates[other[0]]} of {what} has two subjects; it shows one: correct the list"
        )
    return unique, subjects[first]


def _found(templates: Templates, wanted: np.ndarray, what: str, by: str) -> tuple[Tensor, Tensor]:
    # A user's templates as float64 rows, and which of them are wanted by a list, int64.
    rows = as_tensor(templates.features, what).double()
    length = torch.linalg.vector_norm(rows, dim=1)
    wrong = ~(((length - 1).abs() < 0.01) | (length == 0))  # NaN and infinity compare false
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of the {len(rows)} rows of the {what} are not finite or not of unit length; "
            "scores are inner products, so scale every row to length 1 first, as pool_templates does"
        )
    ids = f"ids of the {what}"
    place = _positions(names_or_numbers(templates.ids, ids, len(rows)), wanted, f"the {ids}")
    if (place < 0).any():
        missing = np.unique(wanted[place < 0])
        raise ValueError(
            f"{by} names {len(missing)} templates that no image has, such as {missing[0]}; pool "
            "the images of every template that the lists name"
        )
    return rows, torch.from_numpy(place).to(rows.device)


def _positions(ids: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    # Where each of `wanted` stands in `ids`, int64; -1 where it does not.
    if (ids.dtype.kind in "US") != (wanted.dtype.kind in "US"):
        raise ValueError("some ids are names and those that they refer to are numbers; use one kind for both")
    index = pd.Index(ids)
    if not index.is_unique:
        raise ValueError(
            f"{index[index.duplicated()][0]} stands more than once among {what}; give one row for each: pool "
            "them into one, or leave the others out"
        )
    return index.get_indexer(wanted)
