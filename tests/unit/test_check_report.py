import base64
import io
import re
import sys

import numpy as np
import pytest
from export import fetched_references
from matplotlib import rcParams
from PIL import Image

from compat_lib.deploy.check import Source, check_compatibility
from compat_lib.deploy.check.pictures import histogram, require_pictures
from compat_lib.deploy.check.report import page
from compat_lib.evaluation import cosine_histograms
from compat_lib.evaluation.counting import count
from compat_lib.evaluation.scores import PairScores, unit_rows

SOURCES = [Source(f"{name} <b>&.npz", 1234, "ab" * 32, 60, 8) for name in ("old", "new")]


def make(noise=0.7, **options):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(15), 4)
    old = np.eye(15)[labels] + 0.4 * rng.normal(size=(60, 15))
    return check_compatibility(old, old + noise * rng.normal(size=old.shape), labels, **options)


@pytest.fixture(scope="module")
def result():
    return make(draws=20)


@pytest.fixture(scope="module")
def html(result):
    return page(result, SOURCES)


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).split())


def test_the_page_loads_nothing_and_runs_nothing(html):
    assert fetched_references(html) == []
    assert "<script" not in html and not re.search(r"\son\w+=", html) and "http" not in html
    assert html.startswith("<!DOCTYPE html>") and html.count("<main>") == html.count("</main>") == 1
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html


def test_every_picture_is_inside_and_not_blank(html):
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', html)
    assert len(pictures) == html.count("<img") == html.count("<figure>") == 6
    for data, text in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.size == (720, 585) and len(text) > 30
        assert np.asarray(image.convert("L")).std() > 5


def test_words_and_numbers_are_those_of_the_result(html, result):
    text = text_of(html)
    assert result.paragraph.split(". ")[0].replace("'", "&#x27;") in text
    assert "A full backfill" in text and result.basis.split(".")[0] in text
    assert f"<title>{result.verdict.capitalize()}: " in html
    assert result.verdict == "not compatible" and '<h1 class="no">Not compatible</h1>' in html
    for name in ("old_old/map", "new_old/rank1", "adapter/ridge/new_old/map", "gain/map"):
        form = "{:+.3f}" if name.startswith("gain") else "{:.3f}"
        value, low, high = (form.format(result.metrics[name + end]) for end in ("", "/low", "/high"))
        assert f"{value} [{low}, {high}]" in text


def test_the_record_of_the_files(html):
    text = text_of(html)
    assert "old &lt;b&gt;&amp;.npz, 60 rows of width 8, 1,234 bytes" in text and "<b>" not in html
    assert f"SHA-256 {'ab' * 32}" in text
    assert re.search(r"date 20\d\d-\d\d-\d\d \d\d:\d\d UTC", text) and "compat_lib 0." in text
    assert "bootstrap draws, seed 20, 0" in text


def test_the_style_of_figures_stays_the_callers(result):
    before = dict(rcParams)
    page(result)
    assert dict(rcParams) == before


@pytest.mark.parametrize(
    "options",
    [
        {"draws": 0, "adapter": False},
        {"metric": "rank1", "draws": 5},
        {"metric": "tar@far=0.05", "draws": 5, "queries": 20},
        {"noise": 0.0, "draws": 5},
        {"noise": 50.0, "draws": 5},
    ],
)
def test_every_outcome_makes_a_page(options):
    result = make(**options)
    html = page(result)
    assert html.count("<figure>") == 6 and "nan" not in text_of(html).split("Measured")[0]
    assert ("adapter - old/old" in html) == options.get("adapter", True)


def test_the_heading_says_when_it_is_undecided():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(15), 4)
    old = np.eye(15)[labels] + 0.4 * rng.normal(size=(60, 15))
    result = check_compatibility(old, old + 0.01 * rng.normal(size=old.shape), labels, draws=40)
    assert '<h1 class="open">Undecided</h1>' in page(result)


def test_histograms_are_those_of_the_evaluation():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 8
    features = np.r_[rng.normal(size=(39, 3)), [[0, 0, 0]]]
    features[8] = features[0]  # a cosine of 1
    edges, same, different = histogram(count(PairScores(unit_rows(features, "query"), labels)))
    expected = cosine_histograms(features, labels, bins=len(same))
    assert edges == pytest.approx(expected[0])
    # float32 and float64 may put a score on an edge into neighbouring bins
    for found, wanted in zip((same, different), expected[1:], strict=True):
        assert found.sum() == wanted.sum() and abs(np.cumsum(found) - np.cumsum(wanted)).max() <= 1
    assert same[-1] >= 1


def test_without_matplotlib_there_is_a_sentence(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"the report needs matplotlib.figure, .*compat_lib\[workflow\]"
    ):
        require_pictures()
    with pytest.raises(ModuleNotFoundError, match="leave --report out"):
        page(result)
