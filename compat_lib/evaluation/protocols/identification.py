"""Identification (1:N): is the right subject found in a gallery, and are strangers turned away?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.compatibility import tar_name
from compat_lib.evaluation.counting import most_accepted
from compat_lib.evaluation.inputs import fractions, names_or_numbers
from compat_lib.evaluation.protocols.templates import (
    Templates,
    TemplateTests,
    found,
    positions,
    three_tests,
    unit_templates,
)
from compat_lib.evaluation.records import Record, Records, shown

FPIRS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FPIR_GRID = tuple((10.0 ** (np.arange(101) / 25 - 4)).tolist())  # 100 points over four decades, and 1
RANKS = (1, 5, 10)
SCORES = 2**20  # scores that are held together
EQUAL = 1e-12  # scores that differ by no more are tied


@dataclass(frozen=True)
class GallerySearch:
    """Probes searched in one gallery; tuples in the order of `fpirs`."""

    fpirs: tuple[float, ...]
    tpir: tuple[float, ...]  # share of the mate probes; nan without mate or without non-mate probes
    thresholds: tuple[float, ...]  # a probe is accepted when its score is above this
    measurable: tuple[bool, ...]  # False: the FPIR is below one non-mate probe, or tpir is nan
    hits: dict[int, int]  # k -> mate probes whose entry is among the k most similar
    mates: int  # probes whose subject is in the gallery
    non_mates: int
    entries: int
    curve: np.ndarray = field(repr=False, compare=False)  # float64 [101], TPIR at FPIR_GRID

    @property
    def records(self) -> Records:
        """Records such as "tpir@fpir=1e-2", and "top1" of the mate probes; None where not measurable."""
        top = {f"top{k}": hits / self.mates if self.mates else None for k, hits in self.hits.items()}
        return _records(self, top)

    def summary(self) -> str:
        """Return one line for reading."""
        return f"{_shown(self.records)} ({self.mates} mate, {self.non_mates} non-mate probes)"


@dataclass(frozen=True)
class Identification:
    """Mixed probes searched in two galleries of different subjects; tuples in the order of `fpirs`."""

    fpirs: tuple[float, ...]
    tpir: tuple[float, ...]  # mean of the two galleries
    measurable: tuple[bool, ...]  # in both galleries
    top: dict[int, float]  # k -> (hits in gallery 1 + hits in gallery 2) / probes
    stacked_hits: dict[int, int]  # k -> hits in one gallery made of both
    galleries: tuple[GallerySearch, GallerySearch]
    probes: int  # probe templates
    unenrolled: int  # those whose subject is in neither gallery: misses in `top`
    shared: int  # probe templates that are gallery templates themselves
    curve: np.ndarray = field(repr=False, compare=False)  # float64 [101], mean TPIR at FPIR_GRID

    @property
    def records(self) -> Records:
        """Records "tpir@fpir=1e-2", "top1" and "stacked_top1", a share of all probes too, and so on."""
        top = {f"top{k}": share for k, share in self.top.items()}
        return _records(
            self, top | {f"stacked_top{k}": n / self.probes for k, n in self.stacked_hits.items()}
        )

    def summary(self) -> str:
        """Return one line for reading."""
        return f"{_shown(self.records)} ({self.probes} probes)"


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

    The arguments but the first two are those of `identification`.

    Args:
        old, new: template ids and unit rows of either model, as `pool_templates` returns them; old may be
            None.

    Returns:
        an `Identification` for each pair of models, whose records `criterion` takes. new/old is None when the
        widths differ.

    >>> new = Templates(np.array([1, 2, 3]), [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> tests = identification_1_to_n(new, new, ([1], ["ada"]), ([2], ["bob"]), ([3], ["ada"]), fpirs=[1])
    >>> tests.records.value("new", "old", "top1")
    1.0
    """
    return three_tests(
        old,
        new,
        lambda enrolled, probe: identification(
            enrolled, probe, gallery_1, gallery_2, probes, fpirs=fpirs, ranks=ranks
        ),
    )


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

    For each gallery, the probes of its subjects are mates and all others, those of the other gallery
    included, are non-mates; `gallery_search` defines hits, thresholds and TPIR. TPIR is the mean of both
    galleries. Top-k is (hits in gallery 1 + hits in gallery 2) / (probe templates), the published form: a
    probe in neither gallery is a miss, and `unenrolled` counts them. The stacked run gives hits only.

    Source: the IJB evaluation of MixBCT (arXiv 2308.06948). Deviations: ties (see `gallery_search`); input
    that breaks its assumptions is refused: one template for each subject of a gallery, no subject in both.

    Args:
        enrolled: template ids and unit rows that the galleries' templates are looked up in, such as those of
            `pool_templates`.
        probe: the same for the probes; computed where its tensor lies.
        gallery_1, gallery_2, probes: (template ids, subjects), one entry for each image or for each template,
            whole numbers or names; reduced to unique templates.
        fpirs: fractions in (0, 1].
        ranks: the k of top-k, 1 or more.

    Raises:
        ValueError: "template 7 of gallery 1 has two subjects ...", "subject 3 has 2 templates in gallery 1
            ...", "2 subjects are in both galleries, such as 3 ...", "gallery 2 names 2 templates that no
            image has ...".

    >>> rows = Templates(np.array([1, 2, 3, 4]), [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]])
    >>> result = identification(rows, rows, ([1], [50]), ([2], [60]), ([3, 4], [50, 60]), fpirs=[1.0])
    >>> result.tpir, result.top[1], result.stacked_hits[1]
    ((1.0,), 1.0, 2)
    """
    fpirs = fractions(fpirs, "an FPIR")
    ids, rows = np.asarray(enrolled.ids), unit_templates(enrolled.features, "enrolled templates")
    templates, asking = template_subjects(*probes, what="the probes")
    asked = unit_templates(probe.features, "probe templates")
    asked = asked[torch.from_numpy(found(np.asarray(probe.ids), templates, "the probe list"))]
    lists = [
        template_subjects(*side, what=what)
        for side, what in ((gallery_1, "gallery 1"), (gallery_2, "gallery 2"))
    ]
    for (_, subjects), what in zip(lists, ("gallery 1", "gallery 2"), strict=True):
        _one_each(subjects, what)
    common = lists[0][1][positions(lists[1][1], lists[0][1]) >= 0]
    if len(common):
        raise ValueError(
            f"{len(common)} subjects are in both galleries, such as {common[0]}; the galleries of the "
            "protocol have no subject in common; search one gallery with gallery_search"
        )
    gallery = np.concatenate([found(ids, known, "a gallery") for known, _ in lists])
    edge = len(lists[0][0])
    places = [positions(subjects, asking) for _, subjects in lists]
    mate = np.where(places[0] >= 0, places[0], np.where(places[1] >= 0, places[1] + edge, -1))
    own, best, ahead = _compare(
        rows[torch.from_numpy(gallery)], asked, mate, [slice(0, edge), slice(edge, len(gallery))]
    )
    results = tuple(
        _search(own, best[g], ahead[g], places[g] >= 0, len(lists[g][0]), fpirs, ranks) for g in (0, 1)
    )
    place = ahead.sum(0)[mate >= 0] + 1
    return Identification(
        fpirs,
        tuple((a + b) / 2 for a, b in zip(*(r.tpir for r in results), strict=True)),
        tuple(a and b for a, b in zip(*(r.measurable for r in results), strict=True)),
        {k: (results[0].hits[k] + results[1].hits[k]) / len(mate) for k in ranks},
        {k: int((place <= k).sum()) for k in ranks},
        results,
        len(mate),
        int((mate < 0).sum()),
        sum(int((positions(known, templates) >= 0).sum()) for known, _ in lists),
        (results[0].curve + results[1].curve) / 2,
    )


def gallery_search(
    gallery: Any,
    gallery_subjects: Any,
    probe: Any,
    probe_subjects: Any,
    *,
    fpirs: Sequence[float] = FPIRS,
    ranks: Sequence[int] = RANKS,
) -> GallerySearch:
    """Return the open-set search of probes in one gallery with one entry for each subject.

    Scores are float64 inner products. A probe whose subject is in the gallery is a mate probe, every other a
    non-mate.

    - hits at k: mate probes whose entry is among the k most similar. Ties are pessimistic: every entry tied
      with the mate's is ranked before it (the published code leaves ties to an unstable sort).
    - threshold at FPIR f: of the n non-mates' top scores, sorted descending from place 0, the one at place
      max(floor(n f) - 1, 0). floor(n f) is the largest whole k with k / n <= f, so that f = 0.29 of n = 100
      gives 29, where the rounded product 0.29 * 100 falls below 29.
    - TPIR(f): the share of the mate probes whose mate's score is above that of every other entry and above
      the threshold, both strictly.

    Scores that differ by 1e-12 or less are tied: the last digit of a product depends on where a row stands.
    An FPIR below one non-mate probe gets the strictest threshold, the highest non-mate score, and
    `measurable` is False.

    Args:
        gallery: float [G, D] of unit length; NumPy array or torch tensor.
        gallery_subjects: whole numbers or names [G], all different.
        probe: float [P, D] of unit length; computed where its tensor lies.
        probe_subjects: [P].
        fpirs: fractions in (0, 1].
        ranks: the k of the hits, 1 or more.

    Raises:
        ValueError: "... not of unit length ...", "subject 3 has 2 templates in the gallery ...".

    >>> gallery, probes = [[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [0.6, 0.8], [0.6, -0.8]]
    >>> result = gallery_search(gallery, [1, 2], probes, [1, 1, 3], fpirs=[1.0])
    >>> result.hits[1], result.thresholds, result.tpir  # the second probe is nearer to subject 2
    (1, (0.6,), (0.5,))
    """
    gallery, probe = unit_templates(gallery, "gallery features"), unit_templates(probe, "probe features")
    subjects = names_or_numbers(gallery_subjects, "gallery subjects", len(gallery))
    _one_each(subjects, "the gallery")
    mate = positions(subjects, names_or_numbers(probe_subjects, "probe subjects", len(probe)))
    own, best, ahead = _compare(gallery, probe, mate, [slice(0, len(gallery))])
    return _search(own, best[0], ahead[0], mate >= 0, len(gallery), fractions(fpirs, "an FPIR"), ranks)


def template_subjects(
    templates: Any, subjects: Any, *, what: str = "the list"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the unique templates of a list by image, sorted, and the subject of each.

    Args:
        templates, subjects: whole numbers or names [N].
        what: what the error messages call the list.

    Raises:
        ValueError: "template 7 of the list has two subjects, 1 and 2 ...".

    >>> [x.tolist() for x in template_subjects([9, 4, 9], ["ada", "bob", "ada"])]
    [[4, 9], ['bob', 'ada']]
    """
    templates = names_or_numbers(templates, f"template ids of {what}")
    subjects = names_or_numbers(subjects, f"subjects of {what}", len(templates))
    unique, first, inverse = np.unique(templates, return_index=True, return_inverse=True)
    of_template = subjects[first]
    other = np.flatnonzero(of_template[inverse] != subjects)
    if len(other):
        row = other[0]
        raise ValueError(
            f"template {templates[row]} of {what} has two subjects, {of_template[inverse[row]]} and "
            f"{subjects[row]}; a template shows one subject: correct the list"
        )
    return unique, of_template


def _one_each(subjects: np.ndarray, what: str) -> None:
    known, count = np.unique(subjects, return_counts=True)
    if (count > 1).any():
        worst = int(count.argmax())
        raise ValueError(
            f"subject {known[worst]} has {count[worst]} templates in {what}; a gallery holds one template "
            "for each subject: pool them into one, or leave the others out"
        )


def _compare(
    gallery: Tensor, probe: Tensor, mate: np.ndarray, parts: list[slice]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # For each probe: the mate's score [P] (nan without mate), and in each part of the gallery, without the
    # mate, the best score [parts, P] and the number of entries that score at least as much as the mate.
    gallery = gallery.to(probe.device)
    own = np.full(len(probe), np.nan)
    best, ahead = np.empty((len(parts), len(probe))), np.empty((len(parts), len(probe)), np.int64)
    step = max(1, SCORES // len(gallery))
    for rows in (slice(start, start + step) for start in range(0, len(probe), step)):
        scores = (probe[rows] @ gallery.T).cpu().numpy()
        known = np.flatnonzero(mate[rows] >= 0)
        place = known, mate[rows][known]
        own[rows][known] = scores[place]
        scores[place] = -np.inf
        for i, part in enumerate(parts):
            best[i, rows] = scores[:, part].max(1)
            ahead[i, rows] = (scores[:, part] >= own[rows, None] - EQUAL).sum(1)
    return own, best, ahead


def _search(
    own: np.ndarray,
    best: np.ndarray,
    ahead: np.ndarray,
    mates: np.ndarray,
    entries: int,
    fpirs: tuple[float, ...],
    ranks: Sequence[int],
) -> GallerySearch:
    identified = np.sort(own[mates & (own > best + EQUAL)])
    strangers = np.sort(best[~mates])[::-1]
    levels = np.array(fpirs + FPIR_GRID)
    allowed = most_accepted(levels, len(strangers))
    thresholds = tpir = np.full(len(levels), np.nan)
    if len(strangers):
        thresholds = strangers[np.maximum(allowed - 1, 0)]
    if len(strangers) and mates.any():
        tpir = (len(identified) - np.searchsorted(identified, thresholds + EQUAL, "right")) / mates.sum()
    asked = slice(0, len(fpirs))
    return GallerySearch(
        fpirs,
        tuple(tpir[asked].tolist()),
        tuple(thresholds[asked].tolist()),
        tuple(((allowed >= 1) & ~np.isnan(tpir))[asked].tolist()),
        {k: int((ahead[mates] + 1 <= k).sum()) for k in ranks},
        int(mates.sum()),
        len(strangers),
        entries,
        tpir[len(fpirs) :],
    )


def _records(result: GallerySearch | Identification, top: dict[str, float | None]) -> Records:
    levels = zip(result.fpirs, result.tpir, result.measurable, strict=True)
    rates = {f"tpir@fpir={tar_name(fpir).split('=')[1]}": tpir if ok else None for fpir, tpir, ok in levels}
    return Records(Record(None, None, name, value) for name, value in (rates | top).items())


def _shown(records: Records) -> str:
    return ", ".join(f"{one.metric} {shown(one.value, percent=False, digits=4)}" for one in records)
