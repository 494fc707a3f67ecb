"""Metrics as records: asked by names, written and read again."""

import json

import numpy as np
import pytest

from compat_lib.evaluation.records import Record, Records


@pytest.fixture
def records() -> Records:
    return Records(
        [
            Record("old", "old", "map", np.float64(0.5)),
            Record("new", "old", "map", 0.6, 0.5, 0.7, draws=np.ones(3)),
            Record("new", "old", "map", 0.55, adapter="ridge"),
            Record("new", "mixed", "map", 0.65, order="random", share=0.5),
            Record("new", "new", "tar@far=1e-4", float("nan")),
        ]
    )


def test_records_survive_json(records):
    again = Records.from_plain(json.loads(json.dumps(records.plain(), allow_nan=False)))
    assert [one.metric for one in again] == [one.metric for one in records]
    assert again.get("new", "old", "map").low == 0.5 and again.get("new", "old", "map").draws is None
    assert again.value("new", "new", "tar@far=1e-4") is None


def test_adapter_order_and_share_tell_records_apart(records):
    assert records.value("new", "old", "map") == 0.6
    assert records.value("new", "old", "map", adapter="ridge") == 0.55
    assert records.value("new", "mixed", "map", order="random", share=0.5) == 0.65
    assert records.find("new", "mixed", "map") is None


def test_what_is_not_there_is_said_with_what_is(records):
    with pytest.raises(KeyError, match="new/new.*tar@far=1e-4"):
        records.get("new", "new", "map")
    with pytest.raises(ValueError, match="same query, gallery"):
        records + [Record("old", "old", "map", 0.1)]
    with pytest.raises(ValueError, match="no records"):
        Records.from_plain([{"metric": "map", "value": 1, "colour": 2}])


def test_the_frame_has_one_row_a_record(records):
    frame = records.frame()
    assert list(frame.columns)[:4] == ["query", "gallery", "metric", "value"] and len(frame) == len(records)
    changed = records.select(query="new", gallery="old", adapter=None).changed(adapter="procrustes")
    assert [one.adapter for one in changed] == ["procrustes"]
