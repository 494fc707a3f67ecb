"""The gallery: search against plain NumPy, every refusal, backfill, damaged files, several processes."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import faiss
import numpy as np
import pytest
import torch
from filelock import FileLock

from compat_lib.deploy.gallery import DamagedGallery, Gallery, index, most_found, score_scale

WIDTH = 16


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rows(number, seed=0, width=WIDTH):
    return np.random.default_rng(seed).normal(size=(number, width))


def best(queries, entries, k):
    """Scores and columns of the k nearest rows, by sorting all of them."""
    scores = unit(queries) @ unit(entries).T
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.fixture(autouse=True)
def nothing_is_forced_to_the_disk(monkeypatch):
    """Most of the time would go into it; what is forced, and when, has a test of its own."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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


def backfilled(made, ids, features, share, batch=37):
    """The first part of the entries again, by the new model."""
    row = {one: place for place, one in enumerate(ids.tolist())}
    some = ids[: round(share * len(ids))]
    list(made.backfill("new", lambda asked: features[[row[one] for one in asked]], some, batch))


# -- search --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_search_finds_what_sorting_all_cosines_finds(old_and_new, share):
    made, ids, old, new = old_and_new
    backfilled(made, ids, new, share)
    mixed = np.where(np.arange(300)[:, None] < 300 * share, new, old)
    queries = rows(20, 3) * 7  # any length
    for one in (made, Gallery.open(made.folder)):
        hits = one.search(queries, 10, model="new")
        scores, order = best(queries, mixed, 10)
        assert np.array_equal(hits.ids, ids[order])
        assert np.allclose(hits.scores, scores, atol=1e-6)
        assert np.array_equal(hits.models, np.where(order < 300 * share, "new", "old"))
    assert made.counts == {"old": 300 - round(300 * share), "stranger": 0, "new": round(300 * share)}


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileExistsError, match="holds other files, such as train; a gallery needs one of its"):
        Gallery.create(tmp_path, {"old": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_old_queries_go_on_after_the_backfill_has_begun(old_and_new):
    made, ids, old, new = old_and_new
    backfilled(made, ids, new, 0.5)
    mixed = np.where(np.arange(300)[:, None] < 150, new, old)
    assert np.array_equal(made.search(old[:9], 5, "old").ids, ids[best(old[:9], mixed, 5)[1]])


def test_more_hits_than_entries_are_marked_as_none(tmp_path):
    made = Gallery.create(tmp_path / "g", {"old": 2})
    assert made.search([[1.0, 0]], 2, "old").ids.tolist() == [[-1, -1]]
    made.insert([5], [[1.0, 0]], "old")
    hits = made.search([[1.0, 0], [0, 1.0]], 3, "old")
    assert hits.ids.tolist() == [[5, -1, -1]] * 2
    assert hits.models.tolist() == [["old", "", ""]] * 2
    assert np.isneginf(hits.scores[:, 1:]).all() and hits.scores[:, 0].tolist() == [1, 0]


def test_torch_tensors_are_taken(old_and_new):
    made, ids, old, _ = old_and_new
    asked = torch.from_numpy(old[:3]).float().requires_grad_()
    assert made.search(asked, 1, "new").ids.ravel().tolist() == ids[:3].tolist()
    made.insert(torch.tensor([20_000]), asked[:1], "old")
    assert len(made) == 301
    made.insert(torch.tensor([20_001]), asked[1:2].bfloat16(), "old")
    assert made.search(asked[1:2], 2, "new").ids.ravel().tolist() == [ids[1], 20_001]


def test_removed_entries_are_not_found_and_their_ids_may_come_back(old_and_new):
    made, ids, old, _ = old_and_new
    made.search(old[:1], 1, "old")  # the index holds them
    made.remove(ids[:2])
    assert made.search(old[:2], 1, "old").ids.ravel().tolist() != ids[:2].tolist()
    assert len(made) == 298 and ids[0] not in made.ids()
    made.insert(ids[:1], old[1:2], "old")
    assert made.search(old[1:2], 1, "old").ids.tolist() == [[ids[0]]]
    assert made.verify().superseded == 2


@pytest.mark.parametrize("k", [1, 17, 300])
def test_search_finds_what_brute_force_of_faiss_finds(old_and_new, k):
    made, ids, old, new = old_and_new
    backfilled(made, ids, new, 0.6)
    mixed = unit(np.where(np.arange(300)[:, None] < 180, new, old)).astype(np.float32)
    queries = unit(rows(25, 3)).astype(np.float32)
    scores, order = faiss.knn(queries, mixed, k, metric=faiss.METRIC_INNER_PRODUCT)
    hits = made.search(queries, k, "new")
    assert np.array_equal(hits.ids, ids[order]) and np.allclose(hits.scores, scores, atol=1e-6)


def test_an_empty_gallery_can_do_everything(tmp_path):
    made = Gallery.create(tmp_path / "g", {"old": 2, "new": 2}, index="hnsw")
    made.insert([], np.empty((0, 2)), "old")
    assert len(made) == 0 and made.ids().tolist() == [] and made.counts == {"old": 0, "new": 0}
    assert list(made.backfill("new", lambda some: some)) == []
    made.save_index()
    made.compact()
    assert "0 entries" in str(made.verify())
    assert made.search(np.empty((0, 2)), 3, "old").ids.shape == (0, 3)


def test_replaced_entries_are_never_missing(old_and_new):
    """One change takes the old features out and the new ones in."""
    made, ids, old, new = old_and_new
    made.search(old[:1], 1, "old")
    before = made._store.now().manifest.changes
    made.insert([*ids[:2], 20_000], new[:3], "old", replace=True)
    assert made._store.now().manifest.changes == before + 1
    assert made.search(new[:3], 1, "old").ids.ravel().tolist() == [*ids[:2], 20_000]
    assert made.verify().superseded == 2 and len(made) == 301
    made.insert(ids[:1], new[:1], "new", replace=True)
    assert made.counts == {"old": 300, "stranger": 0, "new": 1}
    assert Gallery.open(made.folder).search(new[:1], 1, "new").models.tolist() == [["new"]]


def test_features_and_models_come_back_in_the_order_of_the_ids(old_and_new):
    made, ids, old, new = old_and_new
    backfilled(made, ids, new, 0.1)
    asked = ids[[200, 50, 200, 31]]
    assert np.allclose(made.features(asked), unit(old[[200, 50, 200, 31]]), atol=1e-6)
    assert np.allclose(made.features(ids[:30]), unit(new[:30]), atol=1e-6)
    assert made.models_of(ids[[0, 299]]).tolist() == ["new", "old"]
    assert np.array_equal(made.ids("new"), np.sort(ids[:30])) and np.array_equal(made.ids(), np.sort(ids))
    with pytest.raises(ValueError, match="these entries were made by 2 models; ask for those of one"):
        made.features(ids[[0, 299]])


# -- what may be compared ------------------------------------------------------------------------


def test_equal_width_is_not_compatibility(old_and_new):
    made, ids, old, new = old_and_new
    with pytest.raises(
        ValueError, match=r"(?s)'odl' is not declared.*features say nothing.*'old', 'stranger'"
    ):
        made.insert([1], rows(1), "odl")
    with pytest.raises(ValueError, match="the model 'newer' is not declared"):
        made.search(rows(1), 1, "newer")
    with pytest.raises(
        ValueError,
        match="queries of 'stranger' cannot be compared with the 300 entries of 'old': they were not "
        "declared compatible; equal width does not make them comparable",
    ):
        made.search(rows(1), 1, "stranger")
    with pytest.raises(
        ValueError, match="entries of 'stranger' cannot stand beside the 300 entries of 'old'"
    ):
        made.insert([10_001], rows(1), "stranger")
    with pytest.raises(ValueError, match="entries of 'stranger' cannot stand beside"):
        made.backfill("stranger", lambda ids: rows(len(ids)))
    assert len(made) == 300


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


def test_declaring_again_changes_nothing(old_and_new):
    made = old_and_new[0]
    before = (made.folder / "gallery.json").read_bytes()
    made.declare("new", WIDTH, compatible_with="old")
    assert (made.folder / "gallery.json").read_bytes() == before
    assert Gallery.open(made.folder).models["new"].compatible_with == ("old",)


def test_cut_queries_meet_old_entries_by_their_first_coordinates(tmp_path):
    made = Gallery.create(tmp_path / "g", {"old": 4})
    made.declare("new", 6, "old", fit="cut")
    old, new, queries = rows(30, 1, 4), rows(30, 2, 6), rows(5, 3, 6)
    made.insert(np.arange(30), old, "old")
    assert np.array_equal(made.search(queries, 4, "new").ids, best(queries[:, :4], old, 4)[1])
    list(made.backfill("new", lambda ids: new[ids], np.arange(10)))
    scores = unit(queries) @ unit(new).T
    scores[:, 10:] = unit(queries[:, :4]) @ unit(old[10:]).T
    assert np.array_equal(made.search(queries, 30, "new").ids, np.argsort(-scores, axis=1))
    with pytest.raises(ValueError, match=r"only the wider model's queries are cut; ask with 'new'"):
        made.search(old[:1], 1, "old")


def test_padding_compares_with_zeros_in_both_directions(tmp_path):
    made = Gallery.create(tmp_path / "g", {"old": 4})
    made.declare("new", 6, "old", fit="pad")
    old, new = rows(30, 1, 4), rows(30, 2, 6)
    made.insert(np.arange(30), old, "old")
    list(made.backfill("new", lambda ids: new[ids], np.arange(10)))
    wide = np.vstack([unit(new[:10]), np.pad(unit(old[10:]), ((0, 0), (0, 2)))])
    for queries, model in ((rows(5, 3, 6), "new"), (np.pad(rows(5, 3, 4), ((0, 0), (0, 2))), "old")):
        asked = queries[:, : made.models[model].width]
        hits = made.search(asked, 30, model)
        assert np.array_equal(hits.ids, np.argsort(-(unit(queries) @ wide.T), axis=1))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("new", 8, "old"), "'new' has 8 numbers a feature and 'old' 4. With fit='cut'"),
        (("new", 2, "old", "cut"), "'new' has 2 numbers a feature and 'old' 4"),
        (("new", 4, "odl"), "'new' is to be compatible with 'odl', which is not declared"),
        (("old", 4, "old"), "'old' is to be compatible with 'old', which is not declared as another"),
        (("old", 5), "'old' is declared with 4 numbers a feature, and now 5"),
        (("new", 4, "old", "trim"), "fit is 'trim'; give 'cut', 'pad' or nothing"),
        (("new", 4, 7), "compatible_with is 7; give a model's name, or a list of names"),
        (("new", 0), "the width of 'new' is 0; give how many"),
        (("new", True), "the width of 'new' is True"),
        (("", 4), "a model's name is text such as 'old-2024', not ''"),
        ((7, 4), "a model's name is text such as 'old-2024', not 7"),
    ],
)
def test_declarations_that_are_refused(tmp_path, arguments, sentence):
    made = Gallery.create(tmp_path / "g", {"old": 4})
    with pytest.raises(ValueError, match=re.escape(sentence)):
        made.declare(*arguments)
    assert list(made.models) == ["old"]


def test_scores_on_one_scale(old_and_new):
    made, ids, old, new = old_and_new
    backfilled(made, ids, new, 0.5)
    queries = rows(20, 3)
    cosines = unit(queries) @ unit(np.vstack([new[:150], old[150:]])).T
    scaled = np.where(np.arange(300) < 150, (cosines - 0.1) / 0.5, (cosines + 0.2) / 0.25)
    hits = made.search(queries, 300, "new", scales={"new": (0.1, 0.5), "old": (-0.2, 0.25)})
    assert np.allclose(hits.scores, -np.sort(-scaled, axis=1), atol=1e-5)
    for scales, sentence in (
        ({"new": (0, 1)}, "scales lack old; give"),
        ({"new": (0, 1), "old": (0.1, 0)}, r"the scale of 'old' is \(0.1, 0\)"),
        ({"new": (0, 1), "old": 3}, "the scale of 'old' is 3; give two numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            made.search(queries, 1, "new", scales=scales)


def test_one_random_pair_in_a_hundred_passes_one():
    queries, entries = rows(300, 1), rows(500, 2)
    centre, spread = score_scale(queries, torch.from_numpy(entries))
    scaled = (unit(queries) @ unit(entries).T - centre) / spread
    assert abs((scaled > 1).mean() - 0.01) < 1e-4 and abs((scaled > 0).mean() - 0.5) < 1e-4
    many = score_scale(np.tile(queries, (20, 1)), np.tile(entries, (10, 1)))  # 30 million pairs, sampled
    assert np.allclose(many, (centre, spread), atol=0.02)
    for arguments, sentence in (
        ((queries[:2], entries[:3]), "6 pairs cannot show which score one in 100 passes"),
        ((queries, entries, 0.7), "share is 0.7; give a fraction"),
        ((np.ones((50, 4)), np.ones((50, 4))), "more than half of the pairs have one score"),
        ((queries, entries[:, :4]), "the features to compare have shape"),
    ):
        with pytest.raises(ValueError, match=sentence):
            score_scale(*arguments)


# -- bad input -----------------------------------------------------------------------------------


NAN = rows(3)
NAN[1, 2] = np.nan


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda g: g.insert([1, 1, 2], rows(3), "old"), ValueError, "the id 1 was given 2 times"),
        (
            lambda g: g.insert([7, 1, 2], rows(3), "old"),
            ValueError,
            "1 of the 3 ids are in the gallery already: 7",
        ),
        (lambda g: g.insert([1, 2], rows(3), "old"), ValueError, "there are 2 ids for 3 features of 'old'"),
        (lambda g: g.insert([0.5], rows(1), "old"), ValueError, r"the ids have shape (1,) and type float64"),
        (lambda g: g.insert(["a"], rows(1), "old"), ValueError, "keep a table of your own names"),
        (lambda g: g.insert([-1], rows(1), "old"), ValueError, "the ids hold -1; give whole numbers of at"),
        (
            lambda g: g.insert([1, 2, 3], NAN, "old"),
            ValueError,
            "1 or more of the features of 'old' hold NaN, ",
        ),
        (lambda g: g.insert([1, 2, 3], NAN, "old"), ValueError, "(the first: id 2)"),
        (lambda g: g.insert([1], rows(1) * 0, "old"), ValueError, "nothing but zeros"),
        (lambda g: g.insert([1], rows(1) * np.inf, "old"), ValueError, "infinite values"),
        (
            lambda g: g.insert([1], rows(1, width=8), "old"),
            ValueError,
            "have shape (1, 8) and type float64; the",
        ),
        (lambda g: g.insert([1], rows(1)[0], "old"), ValueError, "have shape (16,)"),
        (lambda g: g.insert([1], rows(1).astype(str), "old"), ValueError, "give real numbers [n, 16]"),
        (lambda g: g.remove([7, 8]), KeyError, "there is no entry with the id 8: 1 of the 2 ids are not in"),
        (lambda g: g.features([8]), KeyError, "there is no entry with the id 8"),
        (lambda g: g.models_of([8]), KeyError, "there is no entry with the id 8"),
        (lambda g: g.ids("odl"), ValueError, "the model 'odl' is not declared"),
        (lambda g: g.search(NAN, 1, "old"), ValueError, "of the queries of 'old' hold NaN"),
        (lambda g: g.search(NAN, 1, "old"), ValueError, "(the first: row 1)"),
        (
            lambda g: g.search(rows(1, width=8), 1, "old"),
            ValueError,
            "the queries of 'old' have shape (1, 8)",
        ),
        (lambda g: g.search(rows(1), 0, "old"), ValueError, "k is 0; give a whole number of at least 1"),
        (lambda g: g.backfill("old", rows, batch=0), ValueError, "batch is 0; give a whole number"),
        (lambda g: g.backfill("old", rows, [8]), KeyError, "there is no entry with the id 8"),
        (lambda g: g.backfill("new", rows), ValueError, "the model 'new' is not declared"),
        (lambda g: Gallery.create(g.folder, {"a": 1}), FileExistsError, "there is a gallery in "),
        (lambda g: Gallery.open(g.folder / "no"), FileNotFoundError, "there is no gallery in "),
        (
            lambda g: Gallery.open(g.folder, "lsh"),
            ValueError,
            "the index 'lsh' is not known; choose one of flat",
        ),
        (
            lambda g: Gallery.open(g.folder, "ivf", m=3),
            ValueError,
            "'ivf' has no option m; its options: nlist",
        ),
        (lambda g: Gallery.open(g.folder, "ivf", nlist=0), ValueError, "nlist is 0; give a whole number"),
        (lambda g: Gallery.open(g.folder, "hnsw", m=None), ValueError, "m is None; give a whole number"),
        (
            lambda g: Gallery.open(g.folder, "hnsw", m=3),
            ValueError,
            "m is 3; give a whole number of at least 4",
        ),
        (lambda g: Gallery.create(g.folder / "x", {}), ValueError, "the models are {}; name at least one"),
        (
            lambda g: Gallery.create(g.folder / "x", "ab"),
            ValueError,
            "the models are 'ab'; name at least one",
        ),
        (lambda g: Gallery.open(g.folder / "gallery.json"), FileNotFoundError, "there is no gallery in "),
        (lambda g: g.insert([2**63], rows(1), "old"), ValueError, "the ids hold 9223372036854775808; give"),
        (lambda g: g.insert([1, 2], [[1.0], [1.0, 2.0]], "old"), ValueError, "rows have unequal lengths"),
        (lambda g: g.features([]), ValueError, "no id was given"),
        (lambda g: Gallery.create(g.folder / "x", {"a": 1.5}), ValueError, "the width of 'a' is 1.5"),
    ],
)
def test_refusals_say_what_was_given_and_change_nothing(tmp_path, call, error, sentence):
    made = Gallery.create(tmp_path / "g", {"old": WIDTH})
    made.insert([7], rows(1), "old")
    before = made.verify()
    with pytest.raises(error, match=re.escape(sentence)):
        call(made)
    assert Gallery.open(made.folder).verify() == before


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
    truth = np.flatnonzero(alive)[best(queries, features[alive], hits.ids.shape[1])[1]]
    return np.mean(
        [len(set(a) & set(b)) / len(b) for a, b in zip(hits.ids.tolist(), truth.tolist(), strict=True)]
    )


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_approximate_indexes_follow_removals_and_backfill(tmp_path, clustered, kind):
    features, queries = clustered
    made = Gallery.create(tmp_path / "g", {"old": WIDTH}, index=kind)
    made.declare("new", WIDTH, "old")
    made.insert(np.arange(5000), features[:5000], "old")
    alive = np.arange(6000) < 5000
    assert recall(made.search(queries, 10, "old"), queries, features, alive) > 0.95
    forms = made._searcher._indexes
    assert forms["old"].form == kind and forms["new"].form == "flat"
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


def test_few_entries_left_in_a_graph_are_all_found(tmp_path, clustered):
    """Half of a graph is waypoints at most, and none of them is an answer."""
    features, queries = clustered
    made = Gallery.create(tmp_path / "g", {"old": WIDTH}, index="hnsw")
    made.insert(np.arange(4200), features[:4200], "old")
    made.search(queries, 1, "old")
    made.remove(np.arange(2000))
    alive = (np.arange(6000) >= 2000) & (np.arange(6000) < 4200)
    assert made._searcher._indexes["old"].form == "hnsw"
    assert recall(made.search(queries, 50, "old"), queries, features, alive) > 0.95
    made.remove(np.arange(2000, 4100))  # built again, from few: exact
    assert recall(made.search(queries, 100, "old"), queries, features, alive & (np.arange(6000) >= 4100)) == 1
    assert made._searcher._indexes["old"].form == "flat"


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_a_search_that_another_library_has_replaced_does_no_harm(tmp_path, kind):
    """pytorch-metric-learning imports FAISS's tools for torch, whose search takes no parameters."""
    program = (
        "import faiss.contrib.torch_utils\nimport numpy as np\n"
        "from compat_lib.deploy.gallery import Gallery\n"
        "features = np.random.default_rng(0).normal(size=(5000, 16)).astype('float32')\n"
        f"made = Gallery.create('g', {{'old': 16}}, index='{kind}')\n"
        "made.insert(np.arange(5000), features, 'old')\n"
        "found = made.search(features[:20], 3, 'old').ids[:, 0]\n"
        "made.remove(np.arange(10))\n"
        "again = made.search(features[:20], 3, 'old').ids[:, 0]\n"
        "assert (found == np.arange(20)).all() and (again[10:] == np.arange(10, 20)).all(), (found, again)\n"
        "assert (again[:10] >= 10).all()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_more_cells_than_entries_are_not_made(tmp_path, clustered):
    features, queries = clustered
    made = Gallery.create(tmp_path / "g", {"old": WIDTH}, index="ivf", nlist=10_000)
    made.insert(np.arange(6000), features, "old")
    assert recall(made.search(queries, 10, "old"), queries, features, np.ones(6000, bool)) > 0.9
    assert made._searcher._indexes["old"]._index.nlist == 6000 // 39


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


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_kept_index_is_not_built_again(tmp_path, clustered, kind, monkeypatch):
    features, queries = clustered
    made = Gallery.create(tmp_path / "g", {"old": WIDTH}, index=kind)
    made.insert(np.arange(5000), features[:5000], "old")
    made.search(queries, 10, "old")
    made.save_index()
    made.remove(np.arange(100))  # after it was kept
    made.insert(np.arange(5000, 5500), features[5000:5500], "old")
    built = []
    build = index.ModelIndex._build
    monkeypatch.setattr(index.ModelIndex, "_build", lambda self, *rest: built.append(1) or build(self, *rest))
    alive = (np.arange(6000) >= 100) & (np.arange(6000) < 5500)
    again = Gallery.open(made.folder)
    assert recall(again.search(queries, 10, "old"), queries, features, alive) > 0.95 and not built
    # damaged, or of other files with the same numbers: built again without a word
    path = next((made.folder / "index").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"x" + whole[len(whole) // 2 + 1 :])
    assert recall(Gallery.open(made.folder).search(queries, 10, "old"), queries, features, alive) > 0.95
    assert len(built) == 1
    shutil.rmtree(tmp_path / "g" / "segments")
    (tmp_path / "g" / "gallery.json").unlink()
    path.write_bytes(whole)
    other = Gallery.create(tmp_path / "g", {"old": WIDTH}, index=kind)
    other.insert(np.arange(5000), -features[:5000], "old")
    alive = np.arange(6000) < 5000
    assert recall(other.search(-queries, 10, "old"), queries, features, alive) > 0.95
    assert len(built) == 2


def test_any_reader_may_choose_another_index(old_and_new):
    made, ids, old, _ = old_and_new
    for kind in index.KINDS:
        assert Gallery.open(made.folder, kind).search(old[:1], 1, "old").ids.tolist() == [[ids[0]]]


# -- backfill ------------------------------------------------------------------------------------


def test_backfill_keeps_its_order_and_goes_on_where_it_was(old_and_new):
    made, ids, _, new = old_and_new
    row = {one: place for place, one in enumerate(ids.tolist())}
    asked = []

    def embed(some):
        asked.append(some.tolist())
        return new[[row[one] for one in some]]

    order = np.random.default_rng(3).permutation(ids)[:200]
    for step in made.backfill("new", embed, order, batch=60):
        if step.done == 120:
            break
    assert (step.done, step.left, step.share) == (120, 80, 120 / 300)
    again = Gallery.open(made.folder)
    steps = list(again.backfill("new", embed, batch=60))  # the order was kept
    assert [(step.done, step.left) for step in steps] == [(60, 20), (80, 0)]
    assert sum(asked, []) == order.tolist()
    assert np.allclose(again.features(order), unit(new[[row[one] for one in order]]), atol=1e-6)
    assert list(again.backfill("new", embed, order)) == []  # nothing is left of it
    assert again.counts["old"] == 100
    assert [step.done for step in again.backfill("new", embed)] == [100]  # no order: all the others
    assert np.array_equal(sum(asked, [])[200:], np.setdiff1d(ids, order))
    assert list(made.backfill("new", embed, order=[])) == []


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
    made, ids, _, new = old_and_new
    calls = []

    def embed(some):
        calls.append(some)
        if len(calls) == 3:
            raise OSError("image 17 cannot be read")
        return new[: len(some)] if len(calls) < 5 else new[: len(some)] * np.nan

    with pytest.raises(OSError, match="image 17"):
        list(made.backfill("new", embed, batch=50))
    assert made.counts["new"] == 100
    with pytest.raises(ValueError, match="features of 'new' hold NaN"):
        list(made.backfill("new", embed, batch=50))
    assert made.verify().entries["new"] == 150
    with pytest.raises(ValueError, match="there are 50 ids for 7 features of 'new'"):
        list(made.backfill("new", lambda ids: new[:7], batch=50))


def test_one_backfill_at_a_time(old_and_new):
    made, _, _, new = old_and_new
    left = made.backfill("new", lambda ids: new[: len(ids)], batch=100)
    next(left)
    with pytest.raises(RuntimeError, match=r"a backfill of .* is under way.*close\(\)"):
        next(Gallery.open(made.folder).backfill("new", lambda ids: new[: len(ids)]))
    left.close()
    assert len(list(made.backfill("new", lambda ids: new[: len(ids)], batch=100))) == 2


def test_most_found_counts_hits(old_and_new):
    made, ids, old, _ = old_and_new
    hits = made.search(np.vstack([old[7:8]] * 3 + [old[9:10]]), 1, "old")
    assert most_found(hits.ids, ids)[:2].tolist() == [ids[7], ids[9]]
    assert most_found([], [3, 1]).tolist() == [3, 1]


# -- several at a time ---------------------------------------------------------------------------


def test_searches_go_on_while_a_thread_backfills(old_and_new):
    """Every answer is that of one committed state: hits of the new model are a beginning of the order."""
    made, ids, old, new = old_and_new
    row = {one: place for place, one in enumerate(ids.tolist())}
    seen, failed = {id(made): set()}, []

    def look(one):
        counts = seen.setdefault(id(one), set())
        try:
            while 300 not in counts and not failed:
                hits = one.search(old[:2], 300, "new")
                made_new = set(hits.ids[0][hits.models[0] == "new"].tolist())
                assert made_new == set(ids[: len(made_new)].tolist()) and (hits.ids >= 0).all()
                counts.add(len(made_new))
        except BaseException as error:
            failed.append(error)

    other = Gallery.open(made.folder)  # knows only what is committed
    threads = [threading.Thread(target=look, args=(one,)) for one in (made, other)]
    for thread in threads:
        thread.start()
    for _ in made.backfill("new", lambda some: new[[row[one] for one in some]], ids, batch=15):
        time.sleep(0.005)
    for thread in threads:
        thread.join(30)
    assert not failed and len(seen) == 2
    assert all(300 in counts and len(counts) > 3 for counts in seen.values())


def test_a_reader_survives_compaction(old_and_new):
    made, ids, old, new = old_and_new
    reader = Gallery.open(made.folder)
    reader.search(old[:1], 1, "old")
    fresh = Gallery.open(made.folder)  # has read no feature yet
    backfilled(made, ids, new, 0.9)
    made.remove(ids[:10])
    size = sum(path.stat().st_size for path in made.folder.rglob("*") if path.is_file())
    before = made.verify()
    saved = made.compact()
    after = made.verify()
    assert saved == size - sum(path.stat().st_size for path in made.folder.rglob("*") if path.is_file()) > 0
    assert after.entries == before.entries and (after.superseded, after.unused) == (0, 0)
    assert after.segments == 2 and "290 entries (30 of old, 0 of stranger, 260 of new)" in str(after)
    mixed = np.where(np.arange(300)[:, None] < 270, new, old)[10:]
    for one in (reader, fresh, made):
        assert np.array_equal(one.search(old[:4], 9, "new").ids, ids[10:][best(old[:4], mixed, 9)[1]])


def test_compaction_in_the_middle_of_reading(old_and_new, monkeypatch):
    """The files that a reader is about to open are deleted: it starts over."""
    made, ids, old, _ = old_and_new
    other, compacted = Gallery.open(made.folder), []

    def features(state, keys, store=made._store):
        if not compacted:
            compacted.append(other.compact())
        return type(store).features(store, state, keys)

    monkeypatch.setattr(made._store, "features", features)
    assert np.array_equal(made.search(old[:4], 9, "old").ids, ids[best(old[:4], old, 9)[1]])
    assert compacted


def test_two_writers_take_turns(old_and_new):
    made, _, old, _ = old_and_new
    other = Gallery.open(made.folder)
    made.insert([20_000], old[:1], "old")
    other.insert([20_001], old[:1], "old")
    with pytest.raises(ValueError, match="in the gallery already"):
        other.insert([20_000], old[:1], "old")
    threads = [
        threading.Thread(target=one.insert, args=([30_000 + i], old[:1], "old"))
        for i, one in enumerate([made, other] * 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(other) == 312
    made.verify()


def test_a_writer_that_waits_too_long_says_so(old_and_new, monkeypatch):
    made, _, old, _ = old_and_new
    monkeypatch.setattr("compat_lib.deploy.gallery.store.WAIT", 0.05)
    with (
        FileLock(made.folder / ".lock"),
        pytest.raises(TimeoutError, match="another process has been writing to"),
    ):
        made.insert([20_000], old[:1], "old")
    assert made.search(old[:1], 1, "old").ids.size == 1  # readers need no lock


def test_a_gallery_that_cannot_be_written_to_can_be_searched(old_and_new, monkeypatch):
    made, ids, old, _ = old_and_new
    open_file = os.open

    def refuse(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied", path)
        return open_file(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)  # the tests may run as a user who is refused nothing
    reader = Gallery.open(made.folder)
    assert reader.search(old[:1], 1, "old").ids.tolist() == [[ids[0]]]
    assert reader.verify().entries["old"] == 300
    changes = (
        lambda: reader.insert([20_000], old[:1], "old"),
        lambda: reader.remove(ids[:1]),
        lambda: reader.backfill("new", lambda some: old[: len(some)]),
        reader.compact,
        reader.save_index,
    )
    for change in changes:
        with pytest.raises(
            PermissionError, match=r"can be searched, but not written to \(Permission denied\)"
        ):
            change()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_gallery_opened_before_a_fork_is_written_to_after_it(old_and_new):
    made, _, old, _ = old_and_new
    made.insert([20_000], old[:1], "old")
    child = os.fork()
    if child == 0:
        try:
            made.insert([20_001], old[:1], "old")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert {20_000, 20_001} <= set(made.ids().tolist())


def test_another_process_sees_every_change(old_and_new, project):
    made, ids, old, new = old_and_new
    code = (
        "import sys, numpy as np\n"
        "from compat_lib.deploy.gallery import Gallery\n"
        "gallery = Gallery.open(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    print(len(gallery), gallery.counts['new'], gallery.search(np.eye(16)[:1], 1, 'new').ids[0, 0])\n"
        "    sys.stdout.flush()\n"
    )
    command = [sys.executable, "-c", code, str(made.folder)]
    with subprocess.Popen(
        command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def answer():
            reader.stdin.write("?\n")
            reader.stdin.flush()
            return [int(word) for word in reader.stdout.readline().split()]

        assert answer()[:2] == [300, 0]
        made.insert([20_000], np.eye(16)[:1], "old")
        assert answer() == [301, 0, 20_000]
        backfilled(made, ids, new, 0.5)
        assert answer() == [301, 150, 20_000]
        reader.stdin.close()


def test_writing_needs_neither_torch_nor_faiss(old_and_new, project):
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'faiss', 'pandas', 'matplotlib')))\n"
        "import numpy as np\n"
        "from compat_lib.deploy.gallery import Gallery\n"
        "gallery = Gallery.open(sys.argv[1])\n"
        "gallery.insert([20_000], np.ones((1, 16)), 'old')\n"
        "list(gallery.backfill('new', lambda ids: np.ones((len(ids), 16))))\n"
        "print(gallery.verify())\n"
        "gallery.search(np.ones((1, 16)), 1, 'new')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(old_and_new[0].folder)], cwd=project, capture_output=True, text=True
    )
    assert ended.stdout.startswith("301 entries (0 of old, 0 of stranger, 301 of new)"), ended.stderr
    assert "ImportError: searching a gallery needs FAISS: pip install faiss-cpu" in ended.stderr


# -- files ---------------------------------------------------------------------------------------


def test_numpy_alone_reads_a_segment(old_and_new):
    made, ids, old, _ = old_and_new
    with open(made.folder / "segments" / "00000000.npy", "rb") as file:
        assert np.array_equal(np.load(file), ids[:120])
        assert np.allclose(np.load(file), unit(old[:120]), atol=1e-6)


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda g: flipped(g / "gallery.json", 40), "gallery.json is damaged: its checksum"),
        (lambda g: flipped(g / "gallery.json", -2), "gallery.json is damaged: its checksum"),
        (lambda g: (g / "gallery.json").write_bytes(b""), "gallery.json is damaged"),
        (lambda g: (g / "gallery.json").write_text("[]"), "gallery.json is damaged"),
        (lambda g: os.truncate(g / "gallery.json", 200), "gallery.json is damaged"),
        (
            lambda g: flipped(g / "segments/00000001.npy", 300),
            "00000001.npy is damaged: its ids are not those",
        ),
        (
            lambda g: flipped(g / "segments/00000001.npy", 20),
            "00000001.npy is damaged: its ids are not those",
        ),
        (
            lambda g: os.truncate(g / "segments/00000001.npy", 5000),
            "00000001.npy is damaged: it has 5000 bytes",
        ),
        (lambda g: os.truncate(g / "segments/00000001.npy", 0), "00000001.npy is damaged: it has 0 bytes"),
        (
            lambda g: (g / "segments/00000001.npy").unlink(),
            "00000001.npy is missing, and the gallery needs it",
        ),
    ],
)
def test_damage_is_found_when_the_gallery_is_opened(old_and_new, damage, sentence):
    damage(old_and_new[0].folder)
    with pytest.raises(DamagedGallery, match=sentence):
        Gallery.open(old_and_new[0].folder)


@pytest.mark.parametrize("place", [-1, 5000, 128 + 180 * 8 + 25])  # values, and the header of the features
def test_damaged_features_are_found_when_they_are_read(old_and_new, place):
    made, ids, _, _ = old_and_new
    flipped(made.folder / "segments" / "00000001.npy", place)
    damaged = Gallery.open(made.folder)
    for call in (damaged.verify, damaged.compact, lambda: damaged.search(rows(1), 1, "old")):
        with pytest.raises(DamagedGallery, match="00000001.npy is damaged: its features are not those"):
            call()
    assert damaged.features(ids[:5]).shape == (5, WIDTH)  # the other file is sound


def test_a_missing_file_is_named_while_the_gallery_is_open(old_and_new):
    made = old_and_new[0]
    (made.folder / "segments" / "00000000.npy").unlink()
    for call in (made.verify, lambda: made.search(rows(1), 1, "old")):
        with pytest.raises(DamagedGallery, match="00000000.npy is missing, and the gallery needs it"):
            call()


def test_entries_whose_manifest_is_lost_are_never_written_over(old_and_new):
    folder = old_and_new[0].folder
    (folder / "gallery.json").rename(folder / "kept")
    before = {path: path.read_bytes() for path in (folder / "segments").iterdir()}
    for again in (lambda: Gallery.create(folder, {"old": WIDTH}), lambda: Gallery.open(folder)):
        with pytest.raises(DamagedGallery, match="gallery.json is missing, .*restore the file from a backup"):
            again()
    assert before == {path: path.read_bytes() for path in (folder / "segments").iterdir()}
    (folder / "kept").rename(folder / "gallery.json")
    assert Gallery.open(folder).verify().entries["old"] == 300


def test_another_format_is_refused(old_and_new):
    made = old_and_new[0]
    path = made.folder / "gallery.json"
    body = json.loads(path.read_bytes())
    body.pop("checksum")
    body["format"] = 2
    import zlib

    text = json.dumps(body, separators=(",", ":")).encode()
    path.write_text(json.dumps({"checksum": zlib.crc32(text), **body}, separators=(",", ":")))
    with pytest.raises(ValueError, match="has the format 2, and this version of compat_lib reads 1"):
        Gallery.open(made.folder)


def test_a_full_disk_changes_nothing(old_and_new, monkeypatch):
    made, ids, old, new = old_and_new
    before = made.search(old[:3], 5, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for call in (
            lambda: made.insert([20_000], old[:1], "old"),
            lambda: made.remove(ids[:1]),
            lambda: list(made.backfill("new", lambda some: new[: len(some)])),
        ):
            with pytest.raises(
                OSError, match=r"\.npy cannot be written \(No space left on device\); nothing"
            ):
                call()
    assert made.verify().unused == 0  # what was half written takes no room
    assert np.array_equal(made.search(old[:3], 5, "old").ids, before.ids)
    assert made.verify().entries == {"old": 300, "stranger": 0, "new": 0}
    made.insert([20_000], old[:1], "old")
    assert len(Gallery.open(made.folder)) == 301


def test_every_file_is_on_the_disk_before_it_gets_its_name(old_and_new, monkeypatch):
    """What a power cut would show and a kill does not: file, name, folder, and the manifest last."""
    made, _, old, _ = old_and_new
    done = []
    sync, rename = os.fsync, os.replace

    def fsync(descriptor):
        done.append(("sync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def replace(source, target):
        done.append(("name", os.stat(source).st_ino, os.path.basename(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    made.insert([20_000], old[:1], "old")
    expected = []
    for path in (made.folder / "segments" / "00000002.npy", made.folder / "gallery.json"):
        file, folder = path.stat().st_ino, path.parent.stat().st_ino
        expected += [("sync", file), ("name", file, path.name), ("sync", folder)]
    assert done == expected


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


def test_large_inserts_are_several_files_and_one_change(tmp_path, monkeypatch):
    monkeypatch.setattr("compat_lib.deploy.gallery.store.ROWS", 100)
    made = Gallery.create(tmp_path / "g", {"old": WIDTH})
    made.insert(np.arange(250), rows(250), "old")
    assert len(list((tmp_path / "g" / "segments").iterdir())) == 3
    assert made._store.now().manifest.changes == 1
    assert np.allclose(made.features([249, 0]), unit(rows(250))[[249, 0]], atol=1e-6)
    assert made.search(rows(250)[120:121], 1, "old").ids.tolist() == [[120]]


def test_a_small_gallery_answers_in_milliseconds(old_and_new):
    made, _, old, _ = old_and_new
    made.search(old[:1], 10, "new")
    took = []
    for _ in range(30):
        began = time.process_time()
        made.search(old[:1], 10, "new")
        took.append(time.process_time() - began)
    assert np.median(took) < 0.003
