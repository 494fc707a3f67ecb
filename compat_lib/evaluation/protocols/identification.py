"""Identification (1:N): is the right subject found in a gallery, and are strangers turned away?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.counting import most_accepted
from compat_lib.evaluation.inputs import fractions, names_or_numbers, slices, whole_numbers
from compat_lib.evaluation.protocols.templates import (
    Templates,
    TemplateTests,
    checked_templates,
    found,
    positions,
    three_tests,
)
from compat_lib.evaluation.records import Measured, rates

FPIRS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RANKS = (1, 5, 10)
SCORES = 2**20  # scores that are held together
EQUAL = 1e-12  # scores that differ by no more are tied

Side = tuple[Tensor, np.ndarray]  # unit rows, the subject of each


@dataclass(frozen=True)
class GallerySearch:
    """Probes searched in one gallery; tuples in the order of the FPIRs."""

    tpir: tuple[float, ...]  # share of the mate probes; nan without mate or without non-mate probes
    thresholds: tuple[float, ...]  # a probe is accepted when its score is above this
    measurable: tuple[bool, ...]  # False: the FPIR is below one non-mate probe, or tpir is nan
    hits: dict[int, int]  # k -> mate probes whose entry is among the k most similar
    mates: int  # probes whose subject is in the gallery
    non_mates: int


@dataclass(frozen=True)
class Identification(Measured):
    """Mixed probes searched in two galleries of different subjects; tuples in the order of `fpirs`."""

    about = "{0.probes} probes"
    fpirs: tuple[float, ...]
    tpir: tuple[float, ...]  # mean of the two galleries
    measurable: tuple[bool, ...]  # in both galleries
    top: dict[int, float]  # k -> (hits in gallery 1 + hits in gallery 2) / probes
    stacked_hits: dict[int, int]  # k -> hits in one gallery made of both
    galleries: tuple[GallerySearch, GallerySearch]
    probes: int  # probe templates
    unenrolled: int  # those whose subject is in neither gallery: misses in `top`
    shared: int  # probe templates that are gallery templates themselves

    @property
    def values(self) -> dict[str, float | None]:
        """Such as "tpir@fpir=1e-2", "top1" and "stacked_top1", a share of all probes too."""
        top = {f"top{k}": share for k, share in self.top.items()}
        stacked = {f"stacked_top{k}": n / self.probes for k, n in self.stacked_hits.items()}
        return rates("tpir@fpir", self.fpirs, self.tpir, self.measurable) | top | stacked


def identification_1_to_n(
    old: Templates | None,
    new: Templates,
    gallery_1: tuple[Any, Any],
    gallery_2: tuple[Any, Any],
    probes: tuple[Any, Any],
    *,
    fpirs: Sequence[float] = FPIRS,
    ranks: Sequence[int] = RANKS,
) -> TemplateTests:
    """Return 1:N identification for old/old, new/old (old galleries, new probes) and new/new.

    old, new: templates of either model, as `pool_templates` returns them; old may be None. The rest as in
    `identification`.

    >>> new = Templates(np.array([1, 2, 3]), [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> tests = identification_1_to_n(new, new, ([1], ["ada"]), ([2], ["bob"]), ([3], ["ada"]), fpirs=[1])
    >>> tests.records.value("new", "old", "top1")
    1.0
    """

    lists = {"gallery_1": gallery_1, "gallery_2": gallery_2, "probes": probes}
    return three_tests(old, new, partial(identification, **lists, fpirs=fpirs, ranks=ranks))


def identification(
    enrolled: Templates,
    probe: Templates,
    gallery_1: tuple[Any, Any],
    gallery_2: tuple[Any, Any],
    probes: tuple[Any, Any],
    *,
    fpirs: Sequence[float] = FPIRS,
    ranks: Sequence[int] = RANKS,
) -> Identification:
    """Return IJB's 1:N identification: mixed probes against two galleries, and against both stacked.

    For each gallery, the probes of its subjects are mates and all others non-mates; `search` defines hits,
    thresholds and TPIR. TPIR is the mean of both galleries. Top-k is (hits in gallery 1 + hits in
    gallery 2) / (probe templates), the published form: a probe in neither gallery is a miss. The stacked run
    gives hits only.

    Source: the IJB evaluation of MixBCT (arXiv 2308.06948). Deviations: ties (see `search`); input
    that breaks its assumptions is refused: one template for each subject of a gallery, no subject in both.

    Args:
        enrolled, probe: templates that the galleries and the probes are looked up in.
        gallery_1, gallery_2, probes: (template ids, subjects), one entry for each image or for each template;
            reduced to unique templates.

    Raises:
        ValueError: also for a template with two subjects or without images.

    >>> rows = Templates(np.array([1, 2, 3, 4]), [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]])
    >>> result = identification(rows, rows, ([1], [50]), ([2], [60]), ([3, 4], [50, 60]), fpirs=[1.0])
    >>> result.tpir, result.top[1], result.stacked_hits[1]
    ((1.0,), 1.0, 2)
    """
    fpirs, ranks = fractions(fpirs, "an FPIR"), whole_numbers(ranks, "the ranks")
    templates, subjects = template_subjects(*probes, what="the probes")
    ids, asked = checked_templates(probe, "probe templates")
    asked = asked[torch.from_numpy(found(ids, templates, "the probe list"))]
    lists = [template_subjects(*gallery_1, what="gallery 1"), template_subjects(*gallery_2, what="gallery 2")]
    lists.append(tuple(np.concatenate(both) for both in zip(*lists, strict=True)))
    ids, rows = checked_templates(enrolled, "enrolled templates")
    first, second, stacked = (
        search((rows[torch.from_numpy(found(ids, known, what))], own), (asked, subjects), fpirs, ranks, what)
        for (known, own), what in zip(lists, ("gallery 1", "gallery 2", "both galleries"), strict=True)
    )
    return Identification(
        fpirs,
        tuple((a + b) / 2 for a, b in zip(first.tpir, second.tpir, strict=True)),
        tuple(a and b for a, b in zip(first.measurable, second.measurable, strict=True)),
        {k: (first.hits[k] + second.hits[k]) / len(asked) for k in ranks},
        stacked.hits,
        (first, second),
        len(asked),
        stacked.non_mates,
        int(np.isin(templates, lists[2][0]).sum()),
    )


def template_subjects(
    templates: Any, subjects: Any, *, what: str = "the list"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the unique templates of a list by image, sorted, and the subject of each.

    >>> [x.tolist() for x in template_subjects([9, 4, 9], ["ada", "bob", "ada"])]
    [[4, 9], ['bob', 'ada']]
    """
    templates = names_or_numbers(templates, f"template ids of {what}")
    subjects = names_or_numbers(subjects, f"subjects of {what}", len(templates))
    unique, first, inverse = np.unique(templates, return_index=True, return_inverse=True)
    other = np.flatnonzero(subjects[first][inverse] != subjects)
    if len(other):
        raise ValueError(
            f"template {templates[other[0]]} of {what} has two subjects; it shows one: correct the list"
        )
    return unique, subjects[first]


def search(
    gallery: Side, probe: Side, fpirs: Sequence[float], ranks: Sequence[int], what: str = "the gallery"
) -> GallerySearch:
    """Return the open-set search of probes in one gallery with one entry for each subject.

    Scores are float64 inner products. A probe whose subject is in the gallery is a mate probe, every other a
    non-mate.

    - hits at k: mate probes whose entry is among the k most similar. Ties are pessimistic: every entry tied
      with the mate's is ranked before it (the published code leaves ties to an unstable sort).
    - threshold at FPIR f: of the n non-mates' top scores, sorted descending from place 0, the one at place
      max(floor(n f) - 1, 0), floor(n f) being the largest whole k with k / n <= f.
    - TPIR(f): the share of the mate probes whose mate's score is above that of every other entry and above
      the threshold, both strictly.

    Scores that differ by 1e-12 or less are tied: the last digit of a product depends on where a row stands.
    An FPIR below one non-mate probe gets the strictest threshold and is marked as not measurable.
    """
    (gallery, known), (probe, asking) = gallery, probe
    names, entries = np.unique(known, return_counts=True)
    if entries.max() > 1:
        raise ValueError(
            f"subject {names[entries.argmax()]} has {entries.max()} templates in {what}; a gallery holds one "
            "for each subject: pool them into one, or leave the others out"
        )
    mate = positions(known, asking)
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
    allowed = most_accepted(np.array(fpirs), len(strangers))
    thresholds = tpir = np.full(len(fpirs), np.nan)
    if len(strangers):
        thresholds = strangers[np.maximum(allowed - 1, 0)]
    if len(strangers) and mates.any():
        tpir = (len(identified) - np.searchsorted(identified, thresholds + EQUAL, "right")) / mates.sum()
    return GallerySearch(
        tuple(tpir.tolist()),
        tuple(thresholds.tolist()),
        tuple(((allowed >= 1) & ~np.isnan(tpir)).tolist()),
        {k: int((ahead[mates] < k).sum()) for k in ranks},
        int(mates.sum()),
        len(strangers),
    )
