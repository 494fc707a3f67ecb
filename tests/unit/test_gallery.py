"""The gallery: search against plain NumPy, refusals, backfill, damage, several processes."""

import errno
import functools
import os
import pickle
import re
import shutil
import signal
import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pandas as pd
import pytest
import torch
from plain_rows import unit

from compat_lib.adapters import fit_procrustes, fit_ridge
from compat_lib.deploy import gallery_database
from compat_lib.deploy.gallery import DamagedGallery, Gallery, score_scale
from compat_lib.deploy.gallery_index import Part

WIDTH = 16


def rows(number, seed=0, width=WIDTH):
    return np.random.default_rng(seed).normal(size=(number, width))


def best(queries, entries, k):
    """The k nearest rows, by sorting all of them."""
    return np.argsort(-(unit(queries) @ unit(entries).T), axis=1)[:, :k]


@pytest.fixture(autouse=True)
def nothing_is_forced_to_the_disk(monkeypatch):
    """Most of the time would go into it."""
    connections(monkeypatch, "PRAGMA synchronous = OFF")


def connections(patch, statement, connect=sqlite3.connect):
    """Every connection begins with this statement."""

    class Connection(sqlite3.Connection):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.execute(statement)

    patch.setattr(sqlite3, "connect", functools.partial(connect, factory=Connection))


@pytest.fixture
def old_and_new(tmp_path):
    """300 entries, declared models old and new, features of both; ids are not row numbers."""
    made = Gallery.create(tmp_path / "gallery", {"old": WIDTH, "stranger": WIDTH})
    made.declare("new", WIDTH, compatible_with="old")
    ids = np.random.default_rng(5).permutation(10_000)[:300]
    old, new = rows(300, 1), rows(300, 2)
    made.insert(ids[:120], old[:120], "old")
    made.insert(ids[120:], old[120:], "old")
    return made, ids, old, new


def embedder(ids, features, asked=None):
    """A model that knows the features of these ids; it writes down what it is asked."""
    row = {one: place for place, one in enumerate(ids.tolist())}

    def embed(some):
        if asked is not None:
            asked.append(some.tolist())
        return features[[row[one] for one in some]]

    return embed


def backfilled(made, ids, features, share, batch=37):
    """The first part of the entries again, by the new model."""
    list(made.backfill("new", embedder(ids, features), ids[: round(share * len(ids))], batch))


# -- search --------------------------------------------------------------------------------------


def test_more_hits_than_entries_are_marked_as_none(tmp_path):
    made = Gallery.create(tmp_path / "g", {"old": 2})
    assert made.search([[1.0, 0]], 2, "old").ids.tolist() == [[-1, -1]]
    made.insert([5], [[1.0, 0]], "old")
    with np.errstate(all="raise"):  # what is too small is zero
        hits = made.search([[1.0, 1e-300], [0, 1.0]], 3, "old")
    assert hits.ids.tolist() == [[5, -1, -1]] * 2
    assert hits.models.tolist() == [["old", "", ""]] * 2
    assert np.isneginf(hits.scores[:, 1:]).all() and hits.scores[:, 0].tolist() == [1, 0]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, "Float32"])
def test_tensors_and_tables_of_any_type_are_taken(old_and_new, kind):
    made, _, old, _ = old_and_new
    row = torch.from_numpy(np.sign(old[:1])).float()  # exact in every type
    row = pd.DataFrame(row.numpy()).astype(kind) if kind == "Float32" else row.requires_grad_().to(kind)
    made.insert(torch.tensor([20_000]), row, "old")
    hits = made.search(row, 1, "new")
    assert hits.ids.tolist() == [[20_000]] and hits.scores[0] == pytest.approx(1)


def test_entries_are_replaced_and_removed_ids_may_come_back(old_and_new):
    made, ids, old, new = old_and_new
    made.search(old[:1], 1, "old")  # the index holds them
    made.insert([*ids[:2], 20_000], new[:3], "old", replace=True)
    made.remove(ids[2:4])
    made.insert(ids[2:3], new[3:4], "new")
    for one in (made, Gallery.open(made.folder)):
        hits = one.search(new[:4], 1, "new")
        assert hits.ids.ravel().tolist() == [*ids[:2], 20_000, ids[2]]
        assert hits.models.ravel().tolist() == ["old", "old", "old", "new"]
    assert len(made) == 300 and ids[3] not in made.ids()
    assert repr(made) == f"Gallery('{made.folder}', 300 entries (299 old, 0 stranger, 1 new); index 'flat')"


@pytest.mark.parametrize("k", [1, 17, 300])
@pytest.mark.parametrize("scales", [None, {"new": (0.1, 0.5), "old": (-0.2, 0.25)}])
def test_search_among_entries_of_two_models_is_a_sort_of_all_scores(old_and_new, k, scales):
    made, ids, old, new = old_and_new
    backfilled(made, ids, new, 0.6)
    queries = rows(25, 3)
    scores = unit(queries) @ unit(np.vstack([new[:180], old[180:]])).T
    if scales:
        scores = np.where(np.arange(300) < 180, (scores - 0.1) / 0.5, (scores + 0.2) / 0.25)
    order = np.argsort(-scores, axis=1)[:, :k]
    hits = made.search(queries, k, "new", scales)
    assert np.array_equal(hits.ids, ids[order])
    assert np.allclose(hits.scores, np.take_along_axis(scores, order, axis=1), atol=1e-5)


def test_features_and_models_come_back_in_the_order_of_the_ids(old_and_new):
    made, ids, old, new = old_and_new
    backfilled(made, ids, new, 0.1)
    asked = ids[[200, 50, 200, 31]]
    assert np.allclose(made.features(asked), unit(old[[200, 50, 200, 31]]), atol=1e-6)
    assert np.allclose(made.features(ids[:30]), unit(new[:30]), atol=1e-6)
    assert made.models_of(ids[[0, 299]]).tolist() == ["new", "old"]
    assert np.array_equal(made.ids("new"), np.sort(ids[:30])) and np.array_equal(made.ids(), np.sort(ids))
    with pytest.raises(ValueError, match="give ids of entries that one model has made"):
        made.features(ids[[0, 299]])


# -- what may be compared ------------------------------------------------------------------------


def test_compatibility_is_of_two_models_and_not_passed_on(tmp_path):
    made = Gallery.create(tmp_path / "g", {"a": 2})
    made.declare("b", 2, "a")
    made.declare("c", 2, ["b"])
    made.insert([1], [[1.0, 0]], "b")
    for model in "abc":
        assert made.search([[1.0, 0]], 1, model).ids.tolist() == [[1]]
    made.insert([2], [[1.0, 0]], "a")
    with pytest.raises(ValueError, match="queries of 'c' cannot be compared with the 1 entries of 'a'"):
        made.search([[1.0, 0]], 1, "c")
    made.declare("c", 2, ["a", "b"])
    assert sorted(made.search([[1.0, 0]], 2, "c").ids[0].tolist()) == [1, 2]


@pytest.mark.parametrize("fit", ["cut", "pad"])
def test_unequal_widths_meet_by_the_first_coordinates_or_by_zeros(tmp_path, fit):
    made = Gallery.create(tmp_path / "g", {"old": 4})
    made.declare("new", 6, "old", fit=fit)
    old, new, queries = rows(30, 1, 4), rows(30, 2, 6), rows(5, 3, 6)
    made.insert(np.arange(30), old, "old")
    list(made.backfill("new", lambda ids: new[ids], np.arange(10)))
    wide = np.vstack([unit(new[:10]), np.pad(unit(old[10:]), ((0, 0), (0, 2)))])
    scores = unit(queries) @ wide.T
    if fit == "cut":
        scores[:, 10:] = unit(queries[:, :4]) @ unit(old[10:]).T
    assert np.array_equal(made.search(queries, 30, "new").ids, np.argsort(-scores, axis=1))
    if fit == "cut":
        with pytest.raises(ValueError, match=r"only 'new' was declared with a way to ask"):
            made.search(old[:1], 1, "old")
    else:
        scores = unit(queries[:, :4]) @ wide[:, :4].T
        assert np.array_equal(made.search(queries[:, :4], 30, "old").ids, np.argsort(-scores, axis=1))


@pytest.mark.parametrize(
    ("index", "side", "width"),
    [("flat", side, width) for side in ("query", "gallery") for width in (WIDTH, 24)]
    + [("milvus", "query", WIDTH), ("milvus", "gallery", 24)],
)
def test_an_adapter_serves_queries_of_another_space(tmp_path, side, width, index):
    old, turn = rows(300), np.linalg.qr(rows(width, 1, width))[0][:WIDTH]
    new = old @ turn + 0.1 * rows(300, 2, width)
    fit = fit_ridge if width == 24 else fit_procrustes
    fitted = replace(fit(*((new, old) if side == "query" else (old, new))), side=side)
    fitted.save(tmp_path / "map.safetensors")
    made = Gallery.create(tmp_path / "made", {"old": WIDTH}, index=index)
    made.insert(range(200), old[:200], model="old")
    made.declare("new", width, "old", adapter=tmp_path / "map.safetensors")
    made.insert([*range(200, 300)], new[200:], model="new")
    asked = new[:40] + 0.1 * rows(40, 3, width)
    # Old entries by the map, new ones as they are.
    ends = (fitted.apply(asked), old[:200]) if side == "query" else (asked, fitted.apply(old[:200]))
    scores = np.hstack([unit(ends[0]) @ unit(ends[1]).T, unit(asked) @ unit(new[200:]).T])
    hits = Gallery.open(tmp_path / "made").search(asked, 5, model="new")
    assert np.array_equal(hits.ids, np.argsort(-scores, axis=1)[:, :5])
    assert np.allclose(hits.scores, -np.sort(-scores, axis=1)[:, :5], atol=1e-5)
    # The stored features are as they were, and old queries have no map to new entries.
    assert np.allclose(made.features(range(200)), unit(old[:200]), atol=1e-6)
    with pytest.raises(ValueError, match="only 'new' was declared with a way to ask"):
        made.search(old[:2], 5, model="old")
    # Another map takes the first one's place.
    other = replace(fitted, matrix=-fitted.matrix)
    made.search(asked, 5, model="new")
    made.declare("new", width, "old", adapter=other)
    scores[:, :200] *= -1
    assert np.array_equal(made.search(asked, 5, model="new").ids, np.argsort(-scores, axis=1)[:, :5])


def test_one_random_pair_in_a_hundred_passes_one():
    queries, entries = rows(300, 1), rows(500, 2)
    centre, spread = score_scale(queries, torch.from_numpy(entries))
    scaled = (unit(queries) @ unit(entries).T - centre) / spread
    assert abs((scaled > 1).mean() - 0.01) < 1e-4 and abs((scaled > 0).mean() - 0.5) < 1e-4
    many = score_scale(np.tile(queries, (20, 1)), np.tile(entries, (10, 1)))  # 30 million pairs, sampled
    assert np.allclose(many, (centre, spread), atol=0.02)
    for arguments, sentence in (
        ((queries[:2], entries[:3]), "6 pairs do not show which score one in 100 passes"),
        ((np.ones((50, 4)), np.ones((50, 4))), "2500 pairs do not show"),
        ((queries, entries[:, :4]), "the features to compare have shape"),
    ):
        with pytest.raises(ValueError, match=sentence):
            score_scale(*arguments)


# -- bad input -----------------------------------------------------------------------------------


NAN = rows(3)
NAN[1, 2] = np.nan
MAP = replace(fit_ridge(rows(30, 0, 4), rows(30, 1, 6)), side="query")  # as if for queries of 4 numbers
SPREAD = "scales need (centre, spread above 0) for 'old', which has entries; got "


REFUSED = {
    "the model 'odl' is not declared, and features say nothing about who made them; declared are 'old', "
    "'stranger'": lambda g: g.insert([1], rows(1), "odl"),
    "queries of 'stranger' cannot be compared with the 1 entries of 'old': they were not declared "
    "compatible, and equal width does not": lambda g: g.search(rows(1), 1, "stranger"),
    "of 'stranger' cannot stand beside the 1 entries of 'old'": lambda g: g.insert([1], rows(1), "stranger"),
    "entries of 'stranger' cannot stand beside": lambda g: g.backfill("stranger", rows),
    "the id 1 was given 2 times": lambda g: g.insert([1, 1, 2], rows(3), "old"),
    "the 2 ids are in the gallery already, such as 7": lambda g: g.insert([7, 1], rows(2), "old"),
    "there are 2 ids for 3 features of 'old'": lambda g: g.insert([1, 2], rows(3), "old"),
    "the id 0.5 is neither text nor a whole": lambda g: g.insert([0.5], rows(1), "old"),
    "the id 'a' is neither text nor": lambda g: g.insert([8, "a"], rows(2), "old"),
    "are such as 7, and now '7' was given; text and": lambda g: g.insert(["7"], rows(1), "old"),
    "the id 'a\\x00b' is neither text nor": lambda g: g.insert(["a\0b"], rows(1), "old"),
    "the id -1 is neither text nor a whole number": lambda g: g.insert([-1], rows(1), "old"),
    "the id 'a\\udce4' is neither text nor": lambda g: g.insert(["a\udce4"], rows(1), "old"),
    "'12' is no list of ids": lambda g: g.remove("12"),  # not the entries "1" and "2"
    "7 is no list of ids": lambda g: g.models_of(7),
    "zeros (the first: row 1)": lambda g: g.insert([1, 2, 3], np.ma.masked_invalid(NAN), "old"),
    "have shape (1, 8) and type float64": lambda g: g.insert([1], rows(1, width=8), "old"),
    "there is no entry with the id 8: 1 of the 2 ids are not in": lambda g: g.remove([7, 8]),
    "1 of the queries of 'old' hold NaN": lambda g: g.search(NAN, 1, "old"),
    "k is 0; give a whole number of at least 1": lambda g: g.search(rows(1), 0, "old"),
    "there is a gallery in ": lambda g: Gallery.create(g.folder, {"a": 1}),
    "there is no gallery in ": lambda g: Gallery.open(g.folder / "no"),
    SPREAD + "None": lambda g: g.search(rows(1), 1, "old", scales={"stranger": (0, 1)}),
    SPREAD + "(0.1, 0)": lambda g: g.search(rows(1), 1, "old", scales={"old": (0.1, 0)}),
    SPREAD + "(nan, 1)": lambda g: g.search(rows(1), 1, "old", scales={"old": (np.nan, 1)}),
    SPREAD + "0.5": lambda g: g.search(rows(1), 1, "old", scales={"old": 0.5}),
    "give queries and their model, or": lambda g: g.search({"old": rows(1)}, 1, "old"),
    "their model, or a mapping": lambda g: g.search(rows(1), 1),
    "give the same queries by": lambda g: g.search({"old": rows(2), "stranger": rows(1)}, 1),
    "each model, at least by one": lambda g: g.search({}, 1),
    "'new' has 8 numbers a feature and 'old' 16; say which": lambda g: g.declare("new", 8, "old"),
    "to be compatible with 'odl', which is not": lambda g: g.declare("new", 8, "odl"),
    "'old' is declared with 16 numbers a feature, and now 5": lambda g: g.declare("old", 5),
    "a model's name is text such as 'old-2024', not ''": lambda g: g.declare("", 5),
    "fit is 'crop'; give 'cut', 'pad' or": lambda g: g.declare("new", 8, "old", fit="crop"),
    "maps 4 numbers to 6, and on the query 6 become": lambda g: g.declare("new", 6, "old", adapter=MAP),
    "an adapter is for one other model, without fit": lambda g: g.declare("new", 6, "old", "cut", MAP),
    "an adapter is for one": lambda g: g.declare("new", 6, ["old", "stranger"], adapter=MAP),
    "whether it maps the 'query' or": lambda g: g.declare("new", 6, "old", adapter=replace(MAP, side=None)),
    "the index is 'lsh'; choose one": lambda g: Gallery.open(g.folder, "lsh"),
    "'ivf' has no option m; its options": lambda g: Gallery.open(g.folder, "ivf", m=3),
}
ERRORS = {"there is no entry": KeyError, "there is a gallery": FileExistsError}
ERRORS |= {"there is no gallery": FileNotFoundError}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refusals_say_what_was_given_and_change_nothing(tmp_path, sentence):
    made = Gallery.create(tmp_path / "g", {"old": WIDTH, "stranger": WIDTH})
    made.insert([7], rows(1), "old")
    error = next((kind for begin, kind in ERRORS.items() if sentence.startswith(begin)), ValueError)
    with pytest.raises(error, match=re.escape(sentence)):
        REFUSED[sentence](made)
    assert Gallery.open(made.folder).verify().entries == {"old": 1, "stranger": 0}


def test_unsigned_8_bit_features_are_taken_with_a_warning_and_a_folder_of_others_is_left_alone(tmp_path):
    made = Gallery.create(tmp_path / "g", {"old": 2})
    with pytest.warns(UserWarning, match="'old' are unsigned numbers, .*: subtract the zero") as told:
        made.insert([1], np.array([[3, 4]], np.uint8), "old")
    assert len(told) == 1
    assert np.allclose(made.features([1]), [[0.6, 0.8]])
    with pytest.raises(FileExistsError, match="holds other files, such as g; give another"):
        Gallery.create(tmp_path, {"old": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


def test_ids_may_be_paths_and_uuids(tmp_path):
    made = Gallery.create(tmp_path / "g", {"old": 2})
    composed, taken_apart = "Zo\u00eb/1.png", "Zoe\u0308/1.png"
    given = [taken_apart, Path("b/2.png"), uuid.UUID(int=7), "\U0001f600 'x' \\"]
    kept = [composed, "b/2.png", str(given[2]), given[3]]
    made.insert(given, [[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]], "old")
    hits = made.search([[0.9, 0.1]], 5, "old")
    assert hits.ids[0].tolist() == [*np.array(kept)[[0, 1, 3, 2]], ""] and set(made.ids()) == set(kept)
    made.remove([taken_apart])
    assert composed not in made.ids()


@pytest.mark.parametrize("numbers", [[1, 2**53 + 1, 2**63 - 1], ["1", "01", "1.0", "1e3", str(2**70)]])
def test_ids_come_back_as_they_were_given(tmp_path, numbers):
    """Numbers beyond float64, and text that looks like a number, by way of SQLite and its JSON."""
    made = Gallery.create(tmp_path / "g", {"old": 2, "new": 2})
    made.declare("new", 2, "old")
    angles = np.linspace(0, 3, len(numbers))
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    made.insert(np.array(numbers), features, "old")
    assert made.search(features, 1, "old").ids.ravel().tolist() == numbers
    assert sorted(made.ids().tolist()) == sorted(numbers)
    assert np.allclose(made.features(numbers[::-1]), features[::-1])
    asked = []
    list(made.backfill("new", lambda ids: asked.extend(ids.tolist()) or features, order=numbers))
    assert asked == numbers
    with pytest.raises(KeyError):
        made.models_of([int(numbers[0]) if isinstance(numbers[0], str) else str(numbers[0])])
    made.remove(numbers[:1])
    assert len(made) == len(numbers) - 1


def test_a_gallery_is_its_folder_in_another_process_and_from_another_place(old_and_new, monkeypatch):
    made, ids, old, _ = old_and_new
    monkeypatch.setenv("HOME", str(made.folder.parent))
    monkeypatch.chdir(made.folder.parent)
    opened = [Gallery.open("gallery"), Gallery.open("~/gallery")]
    opened.append(pickle.loads(pickle.dumps(Gallery.open("gallery", "ivf", nprobe=3))))
    monkeypatch.chdir("/")
    for one in opened:
        assert one.search(old[:1], 1, "old").ids.tolist() == [[ids[0]]]
    assert "index 'ivf'" in repr(opened[-1])


# -- indexes -------------------------------------------------------------------------------------


@pytest.fixture
def clustered():
    """6,000 features in 300 groups, and queries beside some of them."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(300, WIDTH))
    features = centres[generator.integers(0, 300, 6000)] + 0.4 * generator.normal(size=(6000, WIDTH))
    return features, features[:100] + 0.1 * generator.normal(size=(100, WIDTH))


def recall(hits, queries, features, alive):
    """Share of the true neighbours among the living that were found; nothing else may be found."""
    assert alive[hits.ids].all()
    truth = np.flatnonzero(alive)[best(queries, features[alive], hits.ids.shape[1])]
    pairs = zip(hits.ids.tolist(), truth.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_indexes_follow_removals_and_backfill(tmp_path, clustered, kind):
    features, queries = clustered
    made = Gallery.create(tmp_path / "g", {"old": WIDTH}, index=kind)
    made.declare("new", WIDTH, "old")
    made.insert(np.arange(5000), features[:5000], "old")
    alive = np.arange(6000) < 5000
    assert recall(made.search(queries, 10, "old"), queries, features, alive) > 0.95
    assert made._index.indexes[Part("old")][1].form == kind
    made.insert(np.arange(5000, 6000), features[5000:], "old")
    gone = np.random.default_rng(1).permutation(6000)[:2000]
    made.remove(gone)
    alive = ~np.isin(np.arange(6000), gone)
    assert recall(made.search(queries, 10, "old"), queries, features, alive) > 0.95
    # so are many, from more cells; and nearly all are found exactly, and none is missing
    assert recall(made.search(queries[:20], 700, "old"), queries[:20], features, alive) > 0.95
    assert recall(made.search(queries[:5], 4000, "old"), queries[:5], features, alive) == 1
    for step in made.backfill("new", lambda ids: features[ids], batch=1500):
        assert recall(made.search(queries, 10, "new"), queries, features, alive) > 0.95, step
    assert made.counts == {"old": 0, "new": 4000}
    assert made.search(queries[:1], 10, "new").models.tolist() == [["new"] * 10]


def test_cells_are_trained_on_the_models_own_entries(tmp_path, clustered):
    """Entries of two models in different places: few cells of each suffice to find those of either."""
    features, queries = clustered
    made = Gallery.create(tmp_path / "g", {"old": WIDTH}, index="ivf", nprobe=6)
    made.declare("new", WIDTH, "old")
    both = np.vstack([features + 3, features - 3])
    made.insert(np.arange(6000), both[:6000], "old")
    made.insert(np.arange(6000, 12000), both[6000:], "new")
    for asked, model in ((queries + 3, "old"), (queries - 3, "new")):
        hits = made.search(asked, 5, "new")
        assert (hits.models == model).all()
        assert recall(hits, asked, both, np.ones(12000, bool)) > 0.85


# -- backfill ------------------------------------------------------------------------------------


def test_backfill_keeps_its_order_and_goes_on_where_it_was(old_and_new):
    made, ids, _, new = old_and_new
    embed = embedder(ids, new, asked := [])
    order = np.random.default_rng(3).permutation(ids)[:200]
    for step in made.backfill("new", embed, order, batch=60):
        if step.done == 120:
            break
    assert (step.done, step.left, step.share) == (120, 80, 120 / 300)
    again = Gallery.open(made.folder)
    steps = []
    for step in again.backfill("new", embed, batch=60):  # the order was kept
        steps.append((step.done, step.left))
        if not step.left:  # a loop that is left at its last step has done it
            break
    assert steps == [(60, 20), (80, 0)]
    assert sum(asked, []) == order.tolist()
    assert np.allclose(again.features(order), unit(embedder(ids, new)(order)), atol=1e-6)
    assert again.counts["old"] == 100
    assert [step.done for step in again.backfill("new", embed)] == [100]  # no order: all the others
    assert np.array_equal(sum(asked, [])[200:], ids[~np.isin(ids, order)])  # as they were written
    assert list(made.backfill("new", embed, order)) == list(made.backfill("new", embed, order=[])) == []


def test_what_others_do_during_a_batch_is_kept(old_and_new):
    made, ids, old, new = old_and_new
    other, calls = Gallery.open(made.folder), []

    def embed(some):
        if not calls:  # while the first batch is embedded
            other.remove(ids[:2])
            other.insert(ids[:1], old[5:6], "old")  # another image under the same id
            other.insert([20_000], old[6:7], "old")
            other.insert([20_001], new[6:7], "new")
            other.compact()
        calls.append(some)
        return np.tile(new[0] + len(calls), (len(some), 1))

    for _ in made.backfill("new", embed, batch=300):
        pass
    assert made.verify().entries == {"old": 0, "stranger": 0, "new": 301}
    assert ids[1] not in made.ids()
    # features of the removed image were not put in the place of the later one
    assert np.allclose(made.features(ids[:1]), unit(new[:1] + 2), atol=1e-6)
    assert np.allclose(made.features([20_001]), unit(new[6:7]), atol=1e-6)


def test_a_failing_embedding_leaves_what_was_done(old_and_new):
    made, _, _, new = old_and_new
    with pytest.raises(ValueError, match="there are 50 ids for 7 features of 'new'"):
        list(made.backfill("new", lambda ids: new[: 7 if made.counts["new"] == 100 else 50], batch=50))
    assert made.counts["new"] == 100
    assert len(list(made.backfill("new", lambda ids: new[:50], batch=50))) == 4


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("nothing", [None, np.full(WIDTH, np.nan), np.zeros(WIDTH)])
def test_images_that_cannot_be_read_stop_nothing(old_and_new, nothing, beside):
    made, ids, old, new = old_and_new
    row = {one: place for place, one in enumerate(ids.tolist())}
    broken, asked = {ids[7], ids[130]}, []

    def embed(some):
        asked.extend(some.tolist())
        good = torch.tensor(new, requires_grad=True)  # as a network gives them
        return [nothing if one in broken else good[row[one]] for one in some.tolist()]

    steps = list(made.backfill("new", embed, list(torch.tensor(ids)), batch=100, beside=beside))
    told = [(step.done, step.left, len(step.failed)) for step in steps]
    assert told == [(99, 200, 1), (198, 100, 2), (298, 0, 2)]
    assert set(steps[-1].failed) == broken and len(asked) == 300
    assert (made.waiting if beside else made.counts)["new"] == 298
    assert np.allclose(made.features(ids[[7]]), unit(old[[7]]), atol=1e-6)
    (step,) = made.backfill("new", embed, order=steps[-1].failed, beside=beside)  # still broken
    assert (step.done, step.left, set(step.failed)) == (0, 0, broken)
    broken.clear()
    (step,) = made.backfill("new", embed, beside=beside)
    assert (step.done, step.share, step.failed) == (2, 1, ())


# -- several at a time ---------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [False, True])
def test_searches_go_on_while_a_thread_backfills_and_swaps(old_and_new, beside):
    """Every answer is that of one committed state: hits of the new model are a beginning of the order, and
    where its features wait beside the entries, none or all."""
    made, ids, old, new = old_and_new
    counts, failed = [[], []], []

    def look(one, counts):
        try:
            while 300 not in counts and not failed:
                hits = one.search(old[:2], 300, "new")
                made_new = set(hits.ids[0][hits.models[0] == "new"].tolist())
                assert made_new == set(ids[: len(made_new)].tolist()) and (hits.ids >= 0).all()
                counts.append(len(made_new))
        except BaseException as error:
            failed.append(error)

    other = Gallery.open(made.folder)  # knows only what is committed
    threads = [threading.Thread(target=look, args=pair) for pair in zip((made, other), counts, strict=True)]
    for thread in threads:
        thread.start()
    for step in made.backfill("new", embedder(ids, new), ids, batch=50, beside=beside):
        begun = [len(one) for one in counts]  # the next look but one sees this step
        while step.left and not failed and any(len(a) < b + 2 for a, b in zip(counts, begun, strict=True)):
            time.sleep(0.001)
    if beside:
        made.swap()
    for thread in threads:
        thread.join()
    states = {0, 300} if beside else {50, 100, 150, 200, 250, 300}
    assert not failed and all(states <= set(one) <= states | {0} for one in counts)


def test_compaction_saves_room_and_readers_go_on(old_and_new):
    made, ids, old, new = old_and_new
    reader = Gallery.open(made.folder)
    reader.search(old[:1], 1, "old")
    fresh = Gallery.open(made.folder)  # has read no feature yet
    backfilled(made, ids, new, 0.9)
    made.remove(ids[:10])
    before = made.verify()
    saved = made.compact()
    after = made.verify()
    assert saved == before.size - after.size > 0
    assert after.entries == before.entries and before.free > after.free == 0
    assert "290 entries (30 old, 0 stranger, 260 new)" in str(after)
    mixed = np.where(np.arange(300)[:, None] < 270, new, old)[10:]
    for one in (reader, fresh, made):
        assert np.array_equal(one.search(old[:4], 9, "new").ids, ids[10:][best(old[:4], mixed, 9)])


def test_two_writers_take_turns(old_and_new):
    made, _, old, _ = old_and_new
    pair = made, Gallery.open(made.folder)
    for i, one in enumerate(pair):
        one.insert([20_000 + i], old[:1], "old")
    with pytest.raises(ValueError, match="in the gallery already"):
        pair[1].insert([20_000], old[:1], "old")
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda i: pair[i % 2].insert([30_000 + i], old[:1], "old"), range(10)))
    assert len(pair[0]) == len(pair[1]) == 312
    made.verify()


def test_a_writer_that_waits_too_long_says_so(old_and_new, monkeypatch):
    made, _, old, _ = old_and_new
    monkeypatch.setattr("compat_lib.deploy.gallery_database.WAIT", 0.05)
    other = sqlite3.connect(made.folder / "gallery.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TimeoutError, match="another process has been writing to"):
        made.insert([20_000], old[:1], "old")
    assert made.search(old[:1], 1, "old").ids.size == 1  # readers wait for nobody
    other.close()


def test_a_gallery_that_cannot_be_written_to_can_be_searched(old_and_new, monkeypatch):
    made, ids, old, _ = old_and_new
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as a user who is refused nothing
    reader = Gallery.open(made.folder)
    assert reader.search(old[:1], 1, "old").ids.tolist() == [[ids[0]]]
    assert reader.verify().entries["old"] == 300
    for change in (lambda: reader.insert([20_000], old[:1], "old"), lambda: reader.remove(ids[:1])):
        with pytest.raises(PermissionError, match="cannot be written: this folder belongs to somebody else"):
            change()
    (made.folder / "gallery.db-wal").mkdir()  # as where SQLite needs a file beside it and may make none
    with pytest.raises(PermissionError, match="belongs to somebody else; its last .*: copy the whole folder"):
        len(reader)
    numbers = dict.fromkeys(("f_blocks", "f_frsize", "f_bfree", "f_bavail"), 2**20)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY, **numbers))
    with pytest.raises(OSError, match="cannot be written: the disk is read-only"):
        len(reader)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_a_gallery_is_searched_and_written_to(old_and_new):
    """And FAISS's threads of before are not waited for."""
    made, _, old, _ = old_and_new
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    found = made.search(rows(500), 9, "old").ids
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            same = np.array_equal(made.search(rows(500), 9, "old").ids, found)
            made.insert([20_000], old[:1], "old")
            os._exit(int(not same))
        finally:
            os._exit(1)
    faiss.omp_set_num_threads(threads)
    assert os.waitpid(child, 0)[1] == 0 and 20_000 in made.ids()


# -- files ---------------------------------------------------------------------------------------


def test_damage_is_found_and_named(old_and_new, tmp_path):
    made, _, old, _ = old_and_new
    whole = (made.folder / "gallery.db").read_bytes()
    feature = unit(old[5:6]).astype("<f4").tobytes()
    place = whole.index(feature[:40])
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for content in (whole[:place] + b"\0" + whole[place + 1 :], whole[: len(whole) // 3], b"", b"x" * 5000):
        (damaged / "gallery.db").write_bytes(content)
        for call in (Gallery.verify, lambda one: one.search(rows(1), 1, "old")):
            with pytest.raises(DamagedGallery, match="gallery.db is damaged: .*restore it from a backup"):
                call(Gallery.open(damaged))


def test_another_format_is_refused(old_and_new):
    made = old_and_new[0]
    with sqlite3.connect(made.folder / "gallery.db") as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(ValueError, match="has the format 2, and this version of compat_lib reads 3"):
        Gallery.open(made.folder)


def test_a_full_disk_changes_nothing(old_and_new, monkeypatch):
    made, ids, old, new = old_and_new
    before = made.search(old[:3], 5, "old")
    pages = (made.folder / "gallery.db").stat().st_size // 4096
    many = np.tile(new, (20, 1))
    with monkeypatch.context() as patch:
        connections(patch, f"PRAGMA max_page_count = {pages + 1}")
        for replaced in (False, True):
            with pytest.raises(OSError, match="no space is left on the disk; nothing has changed") as found:
                made.insert(np.arange(20_000, 26_000), many, "old", replace=replaced)
            assert found.value.errno == errno.ENOSPC
        assert np.array_equal(made.search(old[:3], 5, "old").ids, before.ids)
        assert made.verify().entries == {"old": 300, "stranger": 0, "new": 0}
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        assert np.array_equal(made.search(old[:3], 5, "old").ids, before.ids)
        with pytest.raises(OSError, match="no space is left") as found:
            made.remove(ids[:1])
        assert found.value.errno == errno.ENOSPC
    made.insert([20_000], old[:1], "old")
    assert len(Gallery.open(made.folder)) == 301


def test_a_folder_that_came_back_from_a_backup_is_read_anew(old_and_new):
    made, ids, old, new = old_and_new
    shutil.copytree(made.folder, made.folder.parent / "backup")
    made.insert([20_000], old[:1] + 9, "old")
    assert made.search(old[:1] + 9, 1, "old").ids.tolist() == [[20_000]]
    shutil.rmtree(made.folder)
    shutil.copytree(made.folder.parent / "backup", made.folder)
    Gallery.open(made.folder).insert([20_001], new[:1] + 9, "old")  # a file with the number of the lost one
    assert made.search(new[:1] + 9, 1, "old").ids.tolist() == [[20_001]]
    assert 20_000 not in made.search(old[:1] + 9, 301, "old").ids


def test_a_gallery_that_is_being_made_is_waited_for(tmp_path, monkeypatch):
    begun, make = threading.Event(), gallery_database.make

    def slow(*arguments):
        begun.set()
        time.sleep(0.2)
        make(*arguments)

    monkeypatch.setattr(gallery_database, "make", slow)
    maker = threading.Thread(target=Gallery.create, args=(tmp_path / "gallery", {"old": 2}))
    maker.start()
    begun.wait()
    assert Gallery.open(tmp_path / "gallery").counts == {"old": 0}
    with pytest.raises(FileExistsError, match="open it with Gallery.open"):
        Gallery.create(tmp_path / "gallery", {"old": 2})
    maker.join()


def test_a_clock_that_is_set_back_gives_no_key_twice(tmp_path, monkeypatch):
    made = Gallery.create(tmp_path / "gallery", {"old": 2})
    made.insert([1], [[0.0, 1.0]], "old")
    monkeypatch.setattr(gallery_database, "time", SimpleNamespace(time_ns=lambda: 1))
    made.insert([2], [[1.0, 0.0]], "old")
    assert made.search([[1.0, 0.0]], 1, "old").ids.tolist() == [[2]]
    made.remove([2])
    made.insert([3], [[-1.0, 0.0]], "old")  # after the same last entry as the one that was found
    assert made.search([[1.0, 0.0]], 2, "old").ids.tolist() == [[1, 3]]
