"""Runs of other protocols in tables, claims and titles, and the papers' own numbers beside them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from companion import claims, results, tables
from companion.reading import read_runs
from companion.tables import printed, protocol_table
from companion.titles import setting_titles
from compat_lib.config import ExperimentConfig
from compat_lib.evaluation.records import HEADLINES, PRINTED, Record

LOO = ExperimentConfig(dataset="cifar100", protocol="leave-one-out", scenario="extended-class", old_share=0.5)


@pytest.fixture
def runs(tmp_path):
    """An independent run, BCT and MixBCT of CIFAR-100 by leave-one-out."""
    values = {"independent": (0.3, 0.01, 0.6), "bct": (0.3, 0.35, 0.58), "mixbct": (0.3, 0.4, 0.6)}
    for method, (old, cross, own) in values.items():
        more = [
            Record(query, gallery, metric, value / 2)
            for (query, gallery), value in zip(results.TESTS.values(), (old, cross, own), strict=True)
            for metric in ("top5", "map")
        ]
        config = dataclasses.replace(LOO, method=method)
        write_run(tmp_path, config, old, cross, own, metric="top1", width=0.01, more=more)
    return results.collect(tmp_path)


def test_scores_and_claims_take_the_protocols_own_headline(runs, tmp_path):
    rows = results.scores(runs)
    assert set(rows["metric"]) == {"top1"} and rows["new_old"].tolist() == [0.01, 0.35, 0.4]
    assert np.allclose(rows["gain"], [(0.01 - 0.3) / 0.3, 0.05 / 0.3, 0.1 / 0.3])
    assert set(results.scores(runs, "map")["metric"]) == {"map"}
    assert read_runs(tmp_path).rows("tar@far=1e-3")["new_old"].tolist() == [0.01, 0.35, 0.4]
    (claim,) = (claim for claim in claims.CLAIMS if claim["id"] == "M3")
    (row,) = claims.try_claim(claim, runs).table.to_dict("records")  # 40 against the bar of 30
    assert (row["difference"], row["verdict"]) == ("+10.0 [+8.1, +11.9]", claims.NOT_DECIDABLE)  # one seed
    (title,) = setting_titles(runs).values()
    assert title == "CIFAR-100, extended-class, softmax to ArcFace, leave-one-out retrieval"
    table = tables.run_table(*[runs["run"].iloc[0]] * 2)
    assert list(table.columns) == ["query/gallery", "top-1", "top-5", "mAP"]
    verdict = tables.verdict_table(*runs["run"][:2], "tar@far=1e-3", "tar@far=1e-2", "map")
    assert verdict["metric"].tolist() == ["top-1", "mAP"]


def test_the_papers_columns_and_numbers_stand_beside_ours(runs):
    table = protocol_table(runs, LOO.experiment_id)
    assert list(table.columns) == ["method", "query/gallery", "top-1", "top-5", "mAP", "whose"]
    ours = table[table["whose"].str.startswith("ours")]
    assert ours["query/gallery"].tolist() == ["old/old"] + ["new/old"] * 3 + ["new/new"] * 3
    first = ours["top-1"].str.split(" ").str[0]
    assert first.astype(float).tolist() == [30.0, 1.0, 35.0, 40.0, 60.0, 58.0, 60.0]
    theirs = table[~table["whose"].str.startswith("ours")]
    bt2 = theirs[(theirs["method"] == "BT2") & (theirs["query/gallery"] == "new/old")]
    assert bt2[["top-1", "top-5", "mAP"]].to_numpy().tolist() == [["38.7", "64.6", "27.7"]]
    assert bt2["whose"].iloc[0].startswith("as printed by BT2, README (arXiv 2211.03989): ResNet-18 on 50")
    assert not theirs["method"].str.contains("MixBCT|Dual").any()


def test_printed_numbers_are_percentages_with_a_source_of_a_known_protocol():
    keys = [(name, "leave-one-out") for name in ("cifar100", "imagenet", "places365")]
    keys += [(name, "landmarks") for name in ("roxford", "rparis", "gldv2")]
    every = pd.concat(printed(*key) for key in keys)
    assert len(every) == 195 and every[["source", "setting", "method"]].notna().all().all()
    pairs = set(zip(every["query"], every["gallery"], strict=True))
    assert pairs == {*results.TESTS.values(), ("new", "mixed")}
    values = every[["top1", "top5", "map"]]
    assert ((values >= 0) & (values <= 100) | values.isna()).all().all() and values.notna().any(axis=1).all()
    assert (every["top1"].isna() | every["top5"].isna() | (every["top1"] <= every["top5"])).all()
    assert printed("market1501", "reid").empty
    assert all(HEADLINES[name] in PRINTED[name] for name in HEADLINES)
