"""The views of an upgrade: what is kept, what the pictures say, and what is refused."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from companion import explore
from companion.explore import marks
from companion.explore.charts import Chart
from companion.explore.markup import sprite


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
    """Tags with their attributes; refuses what does not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.styles = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles.append(data)

    def marks(self, kind=None):
        found = [given for tag, given in self.tags if tag == "i"]
        return [given for given in found if kind is None or kind in given["class"].split()]

    def addresses(self):
        return [given["src"] for tag, given in self.tags if tag == "img"]


def every_view(upgrade):
    return [
        explore.map_view(upgrade, 3),
        explore.map_view(upgrade, [0, 6], colour="first answer"),
        explore.neighbour_view(upgrade, 4, 0.4),
        explore.constraint_view(upgrade, 2),
        explore.change_view(upgrade),
    ]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# -- an upgrade ----------------------------------------------------------------------------------


def test_the_outcome_against_a_loop(upgrade):
    expected = []
    for i in range(len(upgrade)):
        right = []
        for query in (upgrade.old, upgrade.new):
            cosines = [float(query[i] @ upgrade.old[j]) if j != i else -2.0 for j in range(len(upgrade))]
            right.append(upgrade.labels[int(np.argmax(cosines))] == upgrade.labels[i])
        expected.append(
            {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[tuple(right)]
        )
    assert upgrade.outcome.tolist() == expected
    assert len(set(expected)) > 2  # the case has something to tell apart


def test_the_changes_against_scikit_learn(upgrade):
    table = upgrade.changes.by_identity
    for query, means in ((upgrade.old, table.precision_before), (upgrade.new, table.precision_after)):
        by_label = {label: [] for label in upgrade.identities.tolist()}
        for i, label in enumerate(upgrade.labels.tolist()):
            others = np.arange(len(upgrade)) != i
            right = upgrade.labels[others] == label
            by_label[label].append(average_precision_score(right, upgrade.old[others] @ query[i]))
        expected = [np.mean(by_label[label]) for label in table.identities.tolist()]
        assert means == pytest.approx(expected, abs=1e-6)


def test_identities_can_be_counted_or_named(upgrade):
    assert upgrade.picked(3).tolist() == [0, 6, 15]  # places 0, 2.5 -> 2 and 5 of the six labels
    assert upgrade.picked(100).tolist() == upgrade.identities.tolist()
    assert upgrade.picked([9, 3, 9]).tolist() == [3, 9] and upgrade.name(9) == "person D"
    with pytest.raises(ValueError, match="there is no identity 4"):
        upgrade.picked([3, 4])
    for nothing in (0, []):
        with pytest.raises(ValueError, match="no identity was chosen"):
            upgrade.picked(nothing)


def test_large_images_become_small():
    upgrade = make_upgrade()
    images = np.zeros((len(upgrade), 1, 96, 48), np.uint8)
    images[:, :, :48] = 200
    large = explore.Upgrade(upgrade.old, upgrade.new, upgrade.labels, images)
    assert large.thumbnails.shape == (len(upgrade), 1, 48, 24)
    assert (large.thumbnails[:, :, :24] == 200).all() and (large.thumbnails[:, :, 24:] == 0).all()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"new": np.ones((3, 2))}, "4 old features, 3 new features"),
        ({"images": np.zeros((4, 1, 8, 8), np.float32)}, "images must be uint8"),
        ({"labels": np.zeros(4, int)}, "there is one identity only"),
        ({"labels": np.zeros((4, 1), int)}, "one whole number for each image"),
        ({"names": ["a"]}, "1 names for 2 identities"),
        ({"cross": (np.ones((4, 3)), np.ones((4, 2)))}, "cross has 3 and 2 columns"),
        ({"old": np.full((4, 2), np.nan)}, "NaN"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, sentence):
    given = {"old": np.eye(4, 2) + 1, "new": np.eye(4, 2) + 1, "labels": np.array([0, 0, 1, 1])}
    given["images"] = np.zeros((4, 1, 8, 8), np.uint8)
    explore.Upgrade(**given)
    with pytest.raises(ValueError, match=sentence):
        explore.Upgrade(**(given | changes))


# -- the map -------------------------------------------------------------------------------------


def test_a_map_holds_two_dots_an_image_and_a_star_an_identity(upgrade):
    page = Page(explore.map_view(upgrade, [3, 12]).html)
    assert len(page.marks()) == 2 * 10 + 2 and len(page.marks("s")) == 2
    words = [mark["data-t"] for mark in page.marks() if "s" not in mark["class"].split()]
    assert {text.split(",")[0] for text in words} == {"person B", "person E"}
    assert sum("old feature" in text for text in words) == sum("new feature" in text for text in words) == 10
    assert [mark["tabindex"] for mark in page.marks("s")] == ["0", "0"]


def test_every_dot_shows_its_own_image(upgrade):
    grey = np.broadcast_to(8 * np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 3, 8, 8))
    page = Page(
        explore.map_view(explore.Upgrade(upgrade.old, upgrade.new, upgrade.labels, grey), [3, 12]).html
    )
    (address,) = re.findall(r"url\((data:image/jpeg;base64,[^)]*)\)", "".join(page.styles))
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("L"), float)
    for mark in page.marks():
        x, y = (int(re.search(rf"--{axis}:(\d+)", mark["style"]).group(1)) for axis in "xy")
        shown = round(sheet[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean() / 8)
        if "s" in mark["class"].split():
            label = int(mark["data-t"].split("\n")[0])
            own = np.flatnonzero(upgrade.labels == label)
            assert shown == own[(upgrade.old[own] @ unit(upgrade.old[own].mean(0)[None])[0]).argmax()]
        else:
            assert shown == int(re.search(r"image (\d+)", mark["data-t"]).group(1))


def test_dots_lie_where_the_plane_of_greatest_variance_puts_them(upgrade):
    labels = [0, 3, 12]
    rows = np.flatnonzero(np.isin(upgrade.labels, labels))
    stars = np.stack([upgrade.old[upgrade.labels == label].mean(0) for label in labels])
    points = np.concatenate([upgrade.old[rows], upgrade.new[rows], stars]).astype(np.float64)
    centred = points - points.mean(0)
    flat = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    page = Page(explore.map_view(upgrade, labels).html)
    dots = [mark["style"] for mark in page.marks() if "s" not in mark["class"].split()]
    places = [
        [float(re.search(rf"{side}:([\d.]+)%", text).group(1)) for side in ("left", "top")] for text in dots
    ]
    shown = np.array(places) * [10, 7]  # the plane is 1000 by 700
    pairs = [np.linalg.norm(part[:, None] - part[None], axis=2) for part in (flat[: len(dots)], shown)]
    ratio = pairs[1][pairs[0] > 0.2] / pairs[0][pairs[0] > 0.2]
    assert ratio.std() / ratio.mean() < 0.01  # one scale in both directions, whatever the signs of the axes
    assert shown.min() >= 0 and shown[:, 0].max() <= 1000 and shown[:, 1].max() <= 700


def test_a_star_stands_in_the_middle_of_its_dots(upgrade):
    places = explore.layout(upgrade, "PCA", [3, 12])
    for k, label in enumerate((3, 12)):
        own = upgrade.labels[places.rows] == label
        assert places.stars[k] == pytest.approx(places.old[own].mean(0), abs=1e-6)


def test_the_nearest_star_is_asked_without_the_image_itself(upgrade):
    right = np.zeros(2)
    for i, label in enumerate(upgrade.labels):
        kept = np.arange(30) != i
        stars = {c: upgrade.old[kept & (upgrade.labels == c)].mean(0) for c in upgrade.identities}
        for k, features in enumerate((upgrade.old, upgrade.new)):
            best = max(stars, key=lambda c, v=features[i]: v @ stars[c] / np.linalg.norm(stars[c]))
            right[k] += best == label
    assert explore.nearest_star(upgrade) == pytest.approx(right / 30)


def test_colours_tell_models_identities_and_outcomes(upgrade):
    def paints(colour):
        page = Page(explore.map_view(upgrade, 6, colour=colour).html)
        found = {}
        for mark in page.marks():
            side = re.search("(old|new) feature\n", mark["data-t"])
            if side:
                paint = re.search(r"background:(#\w+)", mark["style"]).group(1)
                found.setdefault(side.group(1), []).append((mark["data-t"], paint))
        return found

    model = paints("model")
    assert {paint for _, paint in model["old"]} == {"#0072B2"}
    assert {paint for _, paint in model["new"]} == {"#E8740C"}
    named = {}
    for text, paint in [*paints("identity")["old"], *paints("identity")["new"]]:
        named.setdefault(text.split(",")[0], set()).add(paint)
    assert len(named) == 6 and all(len(colours) == 1 for colours in named.values())
    assert len(set.union(*named.values())) == 6
    for text, paint in paints("first answer")["new"]:
        row = int(re.search(r"image (\d+)", text).group(1))
        assert paint == marks._OUTCOME_COLOURS[upgrade.outcome[row]]
        assert text.endswith(explore.OUTCOMES[upgrade.outcome[row]])
    with pytest.raises(ValueError, match="the colour 'red' is not known"):
        explore.map_view(upgrade, colour="red")


def test_a_t_sne_is_computed_once_and_keeps_the_others_pale(upgrade, monkeypatch):
    from companion import plots

    calls = []
    original = plots.joint_tsne
    monkeypatch.setattr(plots, "joint_tsne", lambda *parts: calls.append(1) or original(*parts))
    few = explore.map_view(upgrade, 2, projection="t-SNE")
    many = explore.map_view(upgrade, 6, projection="t-SNE", colour="identity")
    assert len(calls) == 1
    assert "t-SNE of 30 images" in few.text and "neighbours" in few.text
    pale = [
        re.search(r'<svg viewBox="0 0 1000.*?</svg>', view.html).group().count("h0") for view in (few, many)
    ]
    assert pale == [2 * (30 - 10), 0]
    moved = {mark["data-t"]: mark["style"].split(";")[0] for mark in Page(many.html).marks()}
    kept = {mark["data-t"]: mark["style"].split(";")[0] for mark in Page(few.html).marks()}
    assert len(kept) == 22 and all(moved[text] == place for text, place in kept.items())  # none has moved


def test_a_t_sne_of_many_images_takes_equally_many_of_each_identity():
    from companion.explore.layout import thinned

    labels = np.array([5, 9, 5, 9, 5, 9, 5, 2])
    assert thinned(labels, 6).tolist() == [0, 1, 2, 3, 7]
    assert thinned(labels, 1).tolist() == [0, 1, 7]  # never without an identity


def test_a_projection_that_is_not_known_is_refused(upgrade):
    with pytest.raises(ValueError, match="the projection 'UMAP' is not known; choose PCA or t-SNE"):
        explore.map_view(upgrade, projection="UMAP")


# -- neighbours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 1.0])
def test_neighbours_against_a_loop_over_a_mixed_gallery(upgrade, share):
    fresh = set() if share is None else set(upgrade.order()[: round(share * 30)].tolist())
    for query in (0, 17):
        asked = upgrade.old[query] if share is None else upgrade.new[query]
        gallery = [upgrade.new[j] if j in fresh else upgrade.old[j] for j in range(30)]
        best = sorted((-float(asked @ gallery[j]), j) for j in range(30) if j != query)[:6]
        scores, rows, new = explore.nearest(upgrade, query, share, count=6)
        assert rows.tolist() == [j for _, j in best]
        assert scores == pytest.approx([-score for score, _ in best], abs=1e-6)
        assert new.tolist() == [j in fresh for _, j in best]


def test_entries_meet_the_query_in_the_form_of_the_cross_test():
    plain = make_upgrade()
    rng = np.random.default_rng(5)
    wide = rng.normal(size=(30, 12))  # a new model of another width, compared through its first 8 numbers
    upgrade = explore.Upgrade(plain.old, wide, plain.labels, plain.images, (wide[:, :8], plain.old))
    fresh = set(upgrade.order()[:15].tolist())
    cosines = {}
    for j in range(30):
        sides = (wide[3], wide[j]) if j in fresh else (wide[3, :8], plain.old[j])
        cosines[j] = sides[0] @ sides[1] / np.linalg.norm(sides[0]) / np.linalg.norm(sides[1])
    best = sorted((j for j in range(30) if j != 3), key=lambda j: -cosines[j])[:5]
    assert explore.nearest(upgrade, 3, 0.5, count=5)[1].tolist() == best


def test_strips_say_right_wrong_old_and_new(upgrade):
    view = explore.neighbour_view(upgrade, 4, 0.5, count=5)
    page = Page(view.html)
    frames = [given.get("class") for tag, given in page.tags if tag == "figure"]
    assert len(frames) == 1 + 3 * 5 and frames[0] is None
    found = [explore.nearest(upgrade, 4, share, count=5) for share in (None, 0.0, 0.5)]
    right = [upgrade.labels[rows] == upgrade.labels[4] for _, rows, _ in found]
    expected = ["cx-right" if one else "cx-wrong" for strip in right for one in strip]
    assert frames[1:] == expected
    said = re.findall(r"(?:upgrade|day|backfilled) (\d+)", view.text)
    assert [int(number) for number in said] == [int(strip.sum()) for strip in right]
    assert f"({found[2][2].sum()} new entries)" in view.text
    alts = [given["alt"] for tag, given in page.tags if tag == "img"]
    assert sum("new entry" in alt for alt in alts) == found[2][2].sum()


def test_queries_and_shares_outside_are_refused(upgrade):
    with pytest.raises(ValueError, match="there is no image 30; there are 0 to 29"):
        explore.neighbour_view(upgrade, 30)
    with pytest.raises(ValueError, match="share must lie between 0 and 1, not 40"):
        explore.neighbour_view(upgrade, 3, 40)


# -- constraints and changes ---------------------------------------------------------------------


def test_the_slack_of_all_pairs_gives_the_shares_of_the_evaluation(upgrade):
    slacks = explore.slack(upgrade, np.arange(len(upgrade)))
    assert [len(values) for values in slacks] == [30 * 4, 30 * 25] * 2
    assert upgrade.held.share == pytest.approx([(values >= 0).mean() for values in slacks])
    assert upgrade.held.slack == pytest.approx([values.mean() for values in slacks], abs=1e-6)


def test_the_slack_of_a_pair_by_hand():
    old = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    new = np.array([[0.8, 0.6], [0.8, 0.6], [-1.0, 0.0]])
    toy = explore.Upgrade(old, new, [0, 0, 1], np.zeros((3, 1, 8, 8), np.uint8))
    same, apart, closer, farther = explore.slack(toy, np.array([0]))
    assert same == pytest.approx([0.96 - 0.6])  # 0 and 1: d(new, old) 0.04, d(old, old) 0.4
    assert apart == pytest.approx([0.0 - 0.6])  # 0 and 2: d(new, old) 0.4, d(old, old) 1
    assert closer == pytest.approx([1.0 - 0.96])
    assert farther == pytest.approx([0.6 + 0.8])


def test_the_table_of_constraints_speaks_of_the_chosen_pairs(upgrade):
    view = explore.constraint_view(upgrade, [9])
    rows = np.flatnonzero(upgrade.labels == 9)
    shares = [f"<td>{(values >= 0).mean():.1%}</td>" for values in explore.slack(upgrade, rows)]
    assert all(share in view.html for share in shares)
    assert "5 images of person D" in view.text


def test_flips_of_the_greatest_losers_come_first(upgrade):
    rows = explore.flips(upgrade)
    assert sorted(rows.tolist()) == np.flatnonzero(upgrade.outcome == 1).tolist() and len(rows) > 1
    order = upgrade.changes.by_identity.identities.tolist()
    ranks = [order.index(label) for label in upgrade.labels[rows]]
    assert ranks == sorted(ranks)
    assert set(explore.flips(upgrade, who="gain")) == set(np.flatnonzero(upgrade.outcome == 2))
    label = int(upgrade.labels[rows[0]])
    assert set(explore.flips(upgrade, label)) == {row for row in rows if upgrade.labels[row] == label}


def test_the_losers_are_named_with_their_numbers(upgrade):
    table = upgrade.changes.by_identity
    view = explore.change_view(upgrade, count=2)
    assert table.difference[1] < 0  # at least two lose
    for place in (0, 1):
        name = upgrade.name(table.identities[place])
        before, now = table.precision_before[place], table.precision_after[place]
        assert f"{name}: mean AP {before:.2f} → {now:.2f}" in view.html
    assert f"{upgrade.changes.negative_flips:.1%} had a right first answer" in view.text
    with pytest.raises(ValueError, match="who must be lose or gain"):
        explore.change_view(upgrade, "both")


def test_an_upgrade_to_itself_costs_nobody_anything(upgrade):
    same = explore.Upgrade(upgrade.old, upgrade.old, upgrade.labels, upgrade.images)
    assert not len(explore.flips(same)) and same.held.share == (1.0, 1.0, 1.0, 1.0)
    assert "No identity loses" in explore.change_view(same).html
    assert "100.0%" in explore.constraint_view(same).html


# -- charts --------------------------------------------------------------------------------------


def numbers(path):
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


def test_a_histogram_is_drawn_to_scale():
    chart = Chart((0, 4), (0, 1), size=(466, 248), xlabel="x", ylabel="y", alt="a")  # plot of 400 by 200
    text = chart.area([0, 1, 2, 4], [0.5, 1.0, 0.25], "#123456").html()
    (path,) = re.findall(r'<path d="([^"]*)"', text)
    assert numbers(path) == [56, 208, 108, 156, 8, 256, 158, 456, 208]  # from the floor, up, across, and back
    Page(text)


def test_bars_start_at_zero_and_lines_break_where_nothing_is_known():
    chart = Chart((0, 4), (-1, 1), size=(466, 248), xlabel="x", ylabel="y", alt="a")
    bars = re.findall(r'<path d="([^"]*)"', chart.sticks([1, 3], [-0.5, 1.0], "#1", 3).html())
    assert numbers(bars[0]) == [156, 108, 158, 356, 108, 8]
    lines = re.findall(r'<path d="([^"]*)"', chart.line([0, 1, 2, 3], [0, 1, np.nan, 0], "#2").html())
    assert lines[1].count("M") == 2 and "nan" not in lines[1]


def test_the_areas_of_the_constraints_are_shares(upgrade):
    text = explore.constraint_view(upgrade, 2).html
    paths = [numbers(path) for path in re.findall(r'<path d="([^"]*)" fill="#(?:CC6677|332288)"', text)]
    assert len(paths) == 8  # broken and satisfied, four times
    rows = np.flatnonzero(np.isin(upgrade.labels, upgrade.picked(2)))
    for k, values in enumerate(explore.slack(upgrade, rows)):
        sums = [sum(path[1] - height for height in path[2::2]) for path in paths[2 * k : 2 * k + 2]]
        assert sums[1] / sum(sums) == pytest.approx((values >= 0).mean(), abs=0.02)


# -- pages ---------------------------------------------------------------------------------------


def test_every_view_is_whole_small_and_loads_nothing(upgrade):
    for view in every_view(upgrade):
        page = Page(view.html)
        assert all(address.startswith("data:image/") for address in page.addresses())
        assert "<script" not in view.html and not re.search(r"url\((?!data:)|https?:", view.html)
        assert all(given.get("alt") for tag, given in page.tags if tag == "img")
        names = {name for _, given in page.tags for name in (given.get("class") or "").split()}
        assert {name for name in names if len(name) > 1 and not name.startswith("cx")} == set()
        assert view.text.endswith(".") and view._repr_mimebundle_()["text/plain"] == view.text


def test_names_cannot_break_the_page():
    upgrade = make_upgrade(names=[f'<b>"{k}&' for k in range(6)], title="<i>")
    for view in every_view(upgrade):
        page = Page(view.html)
        assert not [tag for tag, given in page.tags if tag == "b" and not given and '"' in str(given)]
        assert '<b>"' not in view.html and "<i>:" not in view.html


def test_features_that_cannot_be_compared_are_said_to_be():
    plain = make_upgrade()
    unlike = explore.Upgrade(plain.old, np.ones((30, 3)), plain.labels, plain.images).prepared()
    views = [draw(unlike) for draw in (explore.map_view, explore.constraint_view, explore.change_view)]
    assert all(view.text == explore.NO_CROSS for view in views)
    view = explore.neighbour_view(unlike, 0)
    assert "unequal widths" in view.html and "before the upgrade" in view.text
    assert not len(explore.flips(unlike))
    with pytest.raises(ValueError, match="unequal widths"):
        _ = unlike.changes


def test_a_sprite_pads_to_squares():
    address, columns, rows = sprite(np.full((3, 1, 8, 4), 10, np.uint8))
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    assert (columns, rows, sheet.shape) == (2, 2, (16, 16))
    assert sheet[4, 4] < 40 and sheet[4, 0] > 215 and sheet[12, 12] > 215  # image, margin, no image


def test_tensors_are_taken_as_arrays_are(upgrade):
    tensors = [
        torch.from_numpy(np.asarray(x)) for x in (upgrade.old, upgrade.new, upgrade.labels, upgrade.images)
    ]
    again = explore.Upgrade(*tensors, names=upgrade.names)
    assert explore.map_view(again, 3).html == explore.map_view(upgrade, 3).html
