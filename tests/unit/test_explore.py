"""The views of an upgrade: what they are made of, what they show, and that they need no network."""

import json
import math
import re
from html.parser import HTMLParser

import explore_views as benchmark
import ipywidgets
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from companion import explore
from companion.explore import map as maps
from compat_lib.old_system import credible_rows


def make_upgrade(identities=6, each=5, width=8, noise=0.7, seed=0, **options):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities) * 3, each)  # labels with gaps
    centres = rng.normal(size=(identities, width))[labels // 3]
    old, new = (centres + x * rng.normal(size=(len(labels), width)) for x in (noise, 1.5 * noise))
    images = rng.integers(0, 256, (len(labels), 3, 8, 8), np.uint8)
    options.setdefault("names", [f"person {chr(65 + k)}" for k in range(identities)])
    return explore.Upgrade(old, new, labels, images, **options)


@pytest.fixture(scope="module")
def upgrade():
    return make_upgrade()


class Page(HTMLParser):
    """Tags with their attributes, and the text; refuses what does not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.said = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)

    def images(self):
        return [given for tag, given in self.tags if tag == "img"]


def every_view(upgrade):
    return [
        explore.map_view(upgrade, 3),
        explore.map_view(upgrade, [0, 6], colour="first answer"),
        explore.map_view(upgrade, 2, colour="identity", projection="t-SNE"),
        explore.neighbour_view(upgrade, 4, 0.4),
        explore.change_view(upgrade),
        explore.change_view(upgrade, "gain", 2),
    ]


# -- an upgrade ----------------------------------------------------------------------------------


def test_the_outcome_against_a_loop(upgrade):
    expected = []
    for i in range(len(upgrade)):
        right = []
        for query in (upgrade.old, upgrade.new):
            cosines = [float(query[i] @ upgrade.old[j]) if j != i else -2.0 for j in range(len(upgrade))]
            right.append(upgrade.labels[int(np.argmax(cosines))] == upgrade.labels[i])
        places = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}
        expected.append(places[tuple(right)])
    assert upgrade.outcome.tolist() == expected
    assert len(set(expected)) > 2  # the case has something to tell apart


def test_identities_can_be_counted_or_named(upgrade):
    assert upgrade.picked(3).tolist() == [0, 6, 15]  # places 0, 2.5 -> 2 and 5 of the six labels
    assert upgrade.picked(100).tolist() == upgrade.picked(None).tolist() == upgrade.identities.tolist()
    assert upgrade.picked([9, 3, 9]).tolist() == [3, 9] and upgrade.name(9) == "person D"
    with pytest.raises(ValueError, match="there is no identity 4"):
        upgrade.picked([3, 4])
    with pytest.raises(ValueError, match="no identity was chosen"):
        upgrade.picked([])


# -- the map -------------------------------------------------------------------------------------


def test_points_lie_where_the_plane_of_greatest_variance_puts_them(upgrade):
    labels = [0, 3, 12]
    rows = np.flatnonzero(np.isin(upgrade.labels, labels))
    stars = np.stack([upgrade.old[upgrade.labels == label].mean(0) for label in labels])
    points = np.concatenate([upgrade.old[rows], upgrade.new[rows], stars]).astype(np.float64)
    flat = PCA(2).fit_transform(points)
    places = explore.layout(upgrade, "PCA", labels)
    shown = np.concatenate([places.old, places.new, places.stars])
    assert abs(shown) == pytest.approx(abs(flat), abs=1e-6)  # whatever the signs of the axes
    near = [NearestNeighbors(n_neighbors=10).fit(x).kneighbors(return_distance=False) for x in (points, flat)]
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert places.agreement == pytest.approx(kept, abs=0.01) and 0.3 < kept < 1


def test_a_t_sne_is_computed_once_of_equally_many_images_each(upgrade, monkeypatch):
    monkeypatch.setattr(maps, "MOST", 12)
    one = make_upgrade()
    few = explore.layout(one, "t-SNE", [0])
    assert np.bincount(one.places[few.rows]).tolist() == [2] * 6
    assert explore.layout(one, "t-SNE", [0, 3]) is few  # no point moves when others are chosen
    assert len(few.stars) == 6 and few.old.shape == few.new.shape == (12, 2)


def test_the_nearest_star_is_asked_without_the_image_itself(upgrade):
    right = np.zeros(2)
    for i, label in enumerate(upgrade.labels):
        kept = np.arange(30) != i
        stars = {c: upgrade.old[kept & (upgrade.labels == c)].mean(0) for c in upgrade.identities}
        for k, features in enumerate((upgrade.old, upgrade.new)):
            best = max(stars, key=lambda c, v=features[i]: v @ stars[c] / np.linalg.norm(stars[c]))
            right[k] += best == label
    assert explore.nearest_star(upgrade) == pytest.approx(right / 30)


def live_source(upgrade, *given, **options):
    """The columns of the live map, by name."""
    chosen = upgrade.picked(given[0])
    places = explore.layout(upgrade, options.get("projection", "PCA"), chosen)
    plane = maps.live_map(upgrade, places, chosen, options.get("colour", "model"))
    (source,) = {one.data_source for one in plane.renderers if "picture" in one.data_source.data}
    return places, source.data


def test_every_point_shows_its_own_image_and_says_what_it_is(upgrade):
    places, data = live_source(upgrade, [3, 12])
    assert data["row"].tolist() == [*range(5, 10), *range(20, 25)]
    assert data["name"] == ["person B"] * 5 + ["person E"] * 5
    assert data["picture"] == [upgrade.pictures[row] for row in data["row"]]
    assert np.stack([data["new_x"], data["new_y"]], 1) == pytest.approx(places.new)
    for side, features in (("old", upgrade.old), ("new", upgrade.new)):
        mean = upgrade.old[5:10].mean(0)
        assert data[f"{side}_cosine"][0] == pytest.approx(features[5] @ mean / np.linalg.norm(mean), abs=1e-6)


def test_colours_tell_models_identities_and_outcomes(upgrade):
    _, model = live_source(upgrade, 6)
    assert set(model["old_colour"]) == {"#0072B2"} and set(model["new_colour"]) == {"#E8740C"}
    _, identity = live_source(upgrade, 6, colour="identity")
    assert (identity["old_colour"] == identity["new_colour"]).all() and len(set(identity["old_colour"])) == 6
    _, first = live_source(upgrade, 6, colour="first answer")
    expected = [maps.OUTCOME_COLOURS[outcome] for outcome in upgrade.outcome]
    assert first["new_colour"].tolist() == expected and first["outcome"][0] in explore.OUTCOMES
    _, pale = live_source(upgrade, [3], projection="t-SNE")
    assert (pale["new_colour"] == maps.PALE["new"]).sum() == 25  # the others stay, pale


# -- neighbours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 1.0])
def test_neighbours_against_a_loop_over_a_mixed_gallery(upgrade, share):
    wide = np.random.default_rng(5).normal(size=(30, 12))  # compared with old ones by its first 8 numbers
    upgrade = explore.Upgrade(upgrade.old, wide, upgrade.labels, upgrade.images, (wide[:, :8], upgrade.old))
    fresh = set() if share is None else set(upgrade.order()[: round(share * 30)].tolist())
    for query in (0, 17):
        asked = upgrade.old[query] if share is None else wide[query, :8]
        sides = [(wide[query], wide[j]) if j in fresh else (asked, upgrade.old[j]) for j in range(30)]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in sides]
        best = sorted((-float(cosines[j]), j) for j in range(30) if j != query)[:8]
        scores, rows, new = explore.nearest(upgrade, query, share)
        assert rows.tolist() == [j for _, j in best]
        assert scores == pytest.approx([-score for score, _ in best], abs=1e-6)
        assert new.tolist() == [j in fresh for _, j in best]


def test_strips_hold_the_images_with_right_and_wrong_old_and_new(upgrade):
    view = explore.neighbour_view(upgrade, 4, 0.5)
    found = [explore.nearest(upgrade, 4, share) for share in (None, 0.0, 0.5)]
    rows = np.concatenate([[4], *(rows for _, rows, _ in found)])
    page = Page(view.html())
    assert [image["src"] for image in page.images()] == [upgrade.pictures[row] for row in rows]
    frames = ["#332288" in image["style"] for image in page.images()]
    assert frames[1:] == (upgrade.labels[rows[1:]] == upgrade.labels[4]).tolist()
    captions = [text for text in page.said if text[:1] in "✓✗" and text]
    assert sum(text.endswith(" new") for text in captions) == found[2][2].sum() > 0
    right = [(upgrade.labels[one] == upgrade.labels[4]).sum() for _, one, _ in found]
    assert re.findall(r"(?:before|first day|later) (\d+) \(", view.text) == [str(n) for n in right]


# -- constraints and changes ---------------------------------------------------------------------


def test_the_slack_of_all_pairs_gives_the_shares_of_the_evaluation(upgrade):
    rows = explore.queries_of(upgrade, None)
    slacks = explore.slack(upgrade, rows)
    assert [len(values) for values in slacks] == [30 * 4, 30 * 25] * 2
    assert upgrade.held.share == pytest.approx([(values >= 0).mean() for values in slacks])
    assert upgrade.held.slack == pytest.approx([values.mean() for values in slacks], abs=1e-6)


def test_flips_of_the_greatest_losers_come_first(upgrade):
    rows = explore.flips(upgrade)
    assert sorted(rows.tolist()) == np.flatnonzero(upgrade.outcome == 1).tolist() and len(rows) > 1
    order = upgrade.changes.by_identity.identities.tolist()
    ranks = [order.index(label) for label in upgrade.labels[rows]]
    assert ranks == sorted(ranks)
    assert set(explore.flips(upgrade, who="gain")) == set(np.flatnonzero(upgrade.outcome == 2))
    label = int(upgrade.labels[rows[0]])
    assert set(explore.flips(upgrade, label)) == {row for row in rows if upgrade.labels[row] == label}


def test_the_losers_are_named_with_their_numbers_and_images(upgrade):
    table = upgrade.changes.by_identity
    view = explore.change_view(upgrade, count=2)
    assert table.difference[1] < 0  # at least two lose
    said = "".join(Page(view.html()).said)
    for place in (0, 1):
        name = upgrade.name(table.identities[place])
        before, now = table.precision_before[place], table.precision_after[place]
        assert f"{name}: mean AP {before:.2f} → {now:.2f}" in said
        shown = []
        for query in explore.flips(upgrade, int(table.identities[place]))[:2]:
            shown += [query, upgrade.first["before"][1][query], upgrade.first["now"][1][query]]
        sources = [image["src"] for image in Page(view.parts[1 + place]).images()]
        assert sources == [upgrade.pictures[row] for row in shown]
    assert f"{upgrade.changes.negative_flips:.1%} had a right first answer" in view.text


def test_an_upgrade_to_itself_costs_nobody_anything(upgrade):
    same = explore.Upgrade(upgrade.old, upgrade.old, upgrade.labels, upgrade.images)
    assert not len(explore.flips(same)) and same.held.share == (1.0, 1.0, 1.0, 1.0)
    assert "No identity loses" in explore.change_view(same).html()


def test_features_that_cannot_be_compared_are_said_to_be():
    plain = make_upgrade()
    unlike = explore.Upgrade(plain.old, np.ones((30, 3)), plain.labels, plain.images).prepared()
    assert all(view(unlike).text == explore.NO_CROSS for view in (explore.map_view, explore.change_view))
    assert "unequal widths" in explore.neighbour_view(unlike, 0).html()


# -- pages and controls --------------------------------------------------------------------------


def test_every_view_is_whole_and_loads_nothing_whatever_the_names():
    upgrade = make_upgrade(names=[f'</script><b>"{k}&' for k in range(6)], title="<i>")
    for view in every_view(upgrade):
        page = Page(view.html())
        assert all(given["src"].startswith("data:image/") and given["alt"] for given in page.images())
        assert not any("src" in given for tag, given in page.tags if tag == "script")
        assert view.text.endswith(".") and view._repr_mimebundle_()["text/plain"] == view.text
        assert {tag for tag, _ in page.tags} <= {"div", "img", "script", "p", "b", "figure", "figcaption"}
        assert '<b>"' not in view.html() and "<i>" not in view.html()


def test_a_live_picture_has_a_still_one_beneath_that_only_a_script_removes(upgrade):
    view = explore.map_view(upgrade, 3)
    page = Page(view.html())
    assert len(page.images()) == 1 and page.images()[0]["src"].startswith("data:image/png")
    script = next(text for text in page.said if "Bokeh.embed" in text)
    name = re.search(r'getElementById\("(live-\w+)-still"\)\.remove', script)[1]
    assert [given for tag, given in page.tags if given.get("id") == name]
    item = json.loads(re.search(r"embed_item\((.*), \"live", script)[1])
    assert item["doc"]["roots"]
    assert not Page(view.html(still=False)).images()  # a moved control need not draw it


def test_the_script_is_the_packages_own():
    text = explore.load_bokeh().data
    assert "bokeh" in text[:200] and not re.search(r"<script[^>]*\bsrc=", text[:2000])
    assert len(Page(text).tags) >= 1  # nothing in it ends its element too early


def test_a_moved_control_draws_again_in_place(upgrade, monkeypatch):
    class Handle:
        shown = []

        def update(self, bundle, raw):
            self.shown.append(bundle["text/plain"])

    given = []
    monkeypatch.setattr("IPython.display.display", lambda *what, **more: given.append(what) or Handle())
    number = ipywidgets.IntSlider(2, min=1, max=9)
    explore.show(lambda number: explore.View(f"{number}."), number=number)
    assert given[1][0].text == "2." and given[0][0].children == (number,)
    number.value = 4
    assert Handle.shown == ["4."]


def test_the_benchmark_moves_every_view():
    views = benchmark.moves(benchmark.make_upgrade(120, 12).prepared(), tsne=False)
    for draws in views.values():
        pictures = {benchmark.seconds(draw, still=False)[2] for draw in draws}
        assert len(pictures) > 1  # a move changes the picture


# -- training images as MixBCT meets them --------------------------------------------------------


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 10)
    centres = rng.normal(size=(6, 6))  # one class has no images
    old, new = (centres[labels] + noise * rng.normal(size=(50, 6)) for noise in (0.9, 0.4))
    return explore.TrainingSample(old, new, labels, centres + 0.2 * rng.normal(size=(6, 6)), title="toy")


def angle(a, b):
    products = sum(x * y for x, y in zip(a, b, strict=True))
    return math.degrees(math.acos(products / math.hypot(*a) / math.hypot(*b)))


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("target", ["classifier row", "old prototype"])
def test_angles_and_probabilities_against_a_loop(sample, side, target):
    features, scale = getattr(sample, side).astype(float), 7.0
    tables = {label: sample.weight[label].astype(float) for label in range(6)}
    if target == "old prototype":  # classes without images have none
        tables = {c: sample.old[sample.labels == c].astype(float).mean(0) for c in range(5)}
    for row in (0, 13, 49):
        own = int(sample.labels[row])
        angles = {c: angle(features[row], table) for c, table in tables.items()}
        powers = {c: math.exp(scale * math.cos(math.radians(a))) for c, a in angles.items()}
        assert sample.angles(side, target)[row] == pytest.approx(angles[own], abs=0.01)
        chance = powers[own] / sum(powers.values())
        assert sample.probabilities(side, target, scale)[row] == pytest.approx(chance, rel=1e-4)


def test_replaced_rows_are_credible_and_as_many_as_asked(sample):
    old, labels = torch.from_numpy(sample.old), torch.from_numpy(sample.labels)
    for share in (0.5, 0.9, 1.0):
        credible = credible_rows(old, labels, 6, share).numpy()
        assert (sample.credible(share) == credible).all()
        previous = np.zeros(50, bool)
        for ratio in (0.0, 0.1, 0.3, 0.5):
            used = sample.replaced(ratio, share)
            assert used.sum() == round(50 * ratio) and not (used & ~credible).any()
            assert not (previous & ~used).any()  # a larger ratio adds rows and drops none
            previous = used
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    sample.replaced(0.3, 0.8)
    assert torch.equal(torch.rand(2), expected)  # the global random numbers stay as they are
