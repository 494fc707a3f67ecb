"""The way back from a backfill, two indexes beside each other, and the comparison before a swap."""

import sqlite3

import numpy as np
import pytest
from plain_rows import unit

from compat_lib.deploy.gallery import DamagedGallery, Gallery, overlap, score_scale

WIDTH, NUMBER = 8, 120
OLD, NEW, QUERIES = (np.random.default_rng(seed).normal(size=(NUMBER, WIDTH)) for seed in range(3))


def ranked(scores, k):
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.fixture
def made(tmp_path):
    """Old entries 0..119; "new" is compatible with them, "other" is not and has another width."""
    made = Gallery.create(tmp_path / "gallery", {"old": WIDTH, "other": WIDTH + 2})
    made.declare("new", WIDTH, compatible_with="old")
    made.insert(range(NUMBER), OLD, "old")
    return made


def wide(rows):
    return np.hstack([rows, rows[:, :2]])


# -- the way back --------------------------------------------------------------------------------


def test_a_backfill_is_rolled_back_until_it_is_confirmed(made):
    before = made.search(QUERIES, 9, "old")
    steps = made.backfill("new", lambda ids: NEW[ids], order=range(60), batch=20)
    next(steps), next(steps)
    with pytest.raises(RuntimeError, match="a backfill of .* is under way"):
        made.rollback()
    steps.close()
    assert made.counts == {"old": 80, "other": 0, "new": 40} and made.kept == {"old": 40}
    made.search(QUERIES, 9, "new")
    made.rollback()
    assert made.verify().entries == {"old": 120, "other": 0, "new": 0} and made.kept == {}
    again = made.search(QUERIES, 9, "old")
    assert np.array_equal(again.ids, before.ids) and np.array_equal(again.scores, before.scores)
    assert np.allclose(made.features(range(NUMBER)), unit(OLD), atol=1e-6)
    assert [step.done for step in made.backfill("new", lambda ids: NEW[ids])] == [120]  # no order is left
    size = made.verify().size
    made.confirm()
    made.compact()
    assert made.kept == {} and made.verify().size < size
    made.rollback()  # nothing is left to bring back
    assert made.counts["new"] == 120


def test_entries_that_changed_meanwhile_stay_as_they_are(made):
    list(made.backfill("new", lambda ids: NEW[ids]))
    made.insert([3], QUERIES[:1], "new", replace=True)  # another image
    made.insert([500], QUERIES[1:2], "new")
    made.remove([4, 5])
    made.insert([5], QUERIES[2:3], "new")
    made.rollback()
    assert made.ids("new").tolist() == [3, 5, 500] and made.counts["old"] == 117
    assert np.allclose(made.features([3, 5, 500]), unit(QUERIES[[0, 2, 1]]), atol=1e-6)
    list(made.backfill("old", lambda ids: OLD[:3], order=made.ids("new")))
    assert made.counts["old"] == 120 and made.kept == {"new": 3}


def test_what_is_kept_is_verified(made):
    list(made.backfill("new", lambda ids: NEW[ids], order=range(5)))
    with sqlite3.connect(made.folder / "gallery.db") as database:
        database.execute("UPDATE beside SET feature = zeroblob(32) WHERE id = 2")
    with pytest.raises(DamagedGallery):
        made.verify()


def test_a_gallery_of_before_is_searched_and_backfilled(made):
    with sqlite3.connect(made.folder / "gallery.db") as database:
        database.execute("DROP TABLE beside")
        database.execute("DROP TABLE adapters")
    gallery = Gallery.open(made.folder)
    assert gallery.verify().entries["old"] == 120 and gallery.kept == gallery.waiting == {}
    assert np.array_equal(gallery.search(QUERIES, 3, "old").ids, ranked(QUERIES @ unit(OLD).T, 3))
    assert np.array_equal(gallery.search({"old": QUERIES}, 3).ids, ranked(QUERIES @ unit(OLD).T, 3))
    list(gallery.backfill("new", lambda ids: NEW[ids]))
    gallery.rollback()
    assert gallery.counts["old"] == 120


# -- two indexes ---------------------------------------------------------------------------------


def test_two_indexes_of_models_that_cannot_be_compared(made):
    served = made.search(QUERIES, 5, "old")
    queries, features = wide(QUERIES), wide(NEW)
    steps = made.backfill("other", lambda ids: features[ids], order=range(119, -1, -1), batch=40, beside=True)
    step = next(steps)
    assert (step.done, step.left, step.share) == (40, 80, 40 / 120)
    assert made.counts["old"] == 120 and made.waiting == {"other": 40}
    assert np.array_equal(made.search(QUERIES, 5, "old").ids, served.ids)  # nothing has changed for it
    with pytest.raises(ValueError, match="80 entries have no feature of 'other'"):
        made.search({"other": queries}, 5)
    scales = {"old": score_scale(QUERIES, OLD), "other": score_scale(queries, features)}
    sides = ((QUERIES, OLD, "old"), (queries, features, "other"))
    by_old, by_other = ((unit(a) @ unit(b).T - scales[n][0]) / scales[n][1] for a, b, n in sides)
    by_other[:, :80] = -np.inf
    both = {"old": QUERIES, "other": queries}
    for k in (1, 7, 120, 130):
        hits = made.search(both, k, scales=scales)
        expected = ranked(np.maximum(by_old, by_other), k)
        assert np.array_equal(hits.ids[:, :120], expected)
        assert (hits.ids[:, 120:] == -1).all() and np.isneginf(hits.scores[:, 120:]).all()
        won = np.where(by_other > by_old, "other", "old")
        assert np.array_equal(hits.models[:, :120], np.take_along_axis(won, expected, axis=1))
    with pytest.raises(ValueError, match="scales need .* for 'old'"):
        made.search(both, 5)
    steps.close()
    with pytest.raises(ValueError, match="^80 entries have no feature that waits .* cannot stand beside"):
        made.swap()
    assert made.waiting == {"other": 40} and made.counts["old"] == 120  # the refused swap changed nothing
    assert [step.left for step in made.backfill("other", lambda ids: features[ids], beside=True)] == [0]
    # Before the swap: how many answers stay.
    before, after = made.search({"old": QUERIES}, 5), made.search({"other": queries}, 5)
    assert np.array_equal(before.ids, served.ids)
    assert np.array_equal(after.ids, ranked(unit(queries) @ unit(features).T, 5))
    shares = [len(set(a) & set(b)) / 5 for a, b in zip(before.ids.tolist(), after.ids.tolist(), strict=True)]
    assert np.allclose(overlap(before, after), shares) and 0 < np.mean(shares) < 1
    made.swap()
    assert made.counts == {"old": 0, "other": 120, "new": 0} and made.kept == {"old": 120}
    assert np.array_equal(made.search(queries, 5, "other").ids, after.ids)
    assert np.array_equal(made.search({"old": QUERIES}, 5).ids, served.ids)  # the old index is still there
    made.rollback()
    assert np.array_equal(made.search(QUERIES, 5, "old").ids, served.ids)
    list(made.backfill("other", lambda ids: features[ids], beside=True))
    made.swap()
    made.confirm()  # the old index retires
    assert made.kept == made.waiting == {}
    with pytest.raises(ValueError, match="120 entries have no feature of 'old'"):
        made.search({"old": QUERIES}, 5)


def test_a_backfill_in_place_leaves_two_indexes_too(made):
    list(made.backfill("new", lambda ids: NEW[ids], order=range(50)))
    scales = {"old": (0.0, 1.0), "new": (0.1, 0.5)}
    scores = unit(QUERIES) @ unit(OLD).T
    scores[:, :50] = np.maximum(scores[:, :50], (unit(QUERIES) @ unit(NEW[:50]).T - 0.1) / 0.5)
    hits = made.search({"old": QUERIES, "new": QUERIES}, 10, scales=scales)
    assert np.array_equal(hits.ids, ranked(scores, 10))
    assert np.allclose(hits.scores, -np.sort(-scores, axis=1)[:, :10], atol=1e-5)


def test_rolled_back_before_the_swap_nothing_waits(made):
    list(made.backfill("new", lambda ids: NEW[ids], order=range(30), beside=True))
    for call, model in ((made.backfill, "new"), (made.backfill, "other")):
        with pytest.raises(RuntimeError, match="features of 'new' stand beside .*roll back first"):
            call(model, lambda ids: NEW[ids], beside=model == "other")
    made.insert([7], QUERIES[:1], "old", replace=True)  # what waits is of the image before
    made.remove([8])
    assert made.waiting == {"new": 28}
    made.rollback()
    assert made.waiting == {} and made.counts == {"old": 119, "other": 0, "new": 0}
    list(made.backfill("new", lambda ids: NEW[ids], order=range(5)))
    with pytest.raises(RuntimeError, match="features of 'old' stand beside"):
        made.backfill("new", lambda ids: NEW[ids], beside=True)


def test_a_rollback_that_would_leave_strangers_is_refused(made):
    features = wide(NEW)
    list(made.backfill("other", lambda ids: features[ids], beside=True))
    made.swap()
    made.insert([500], features[:1], "other")
    with pytest.raises(ValueError, match="cannot stand beside"):
        made.rollback()
    assert made.counts["other"] == 121 and made.kept == {"old": 120}
    made.remove([500])
    made.rollback()
    assert made.counts["old"] == 120


def test_answers_of_another_number_are_not_compared(made):
    with pytest.raises(ValueError, match="give equal queries and k"):
        overlap(made.search(QUERIES, 3, "old"), made.search(QUERIES, 4, "old"))
    empty = Gallery.create(made.folder.parent / "empty", {"old": WIDTH})
    assert overlap(empty.search(QUERIES[:2], 3, "old"), made.search(QUERIES[:2], 3, "old")).tolist() == [0, 0]
