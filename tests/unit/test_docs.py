"""The pages of docs/ name what is there."""

import re
from pathlib import Path

from compat_lib import evaluation

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_every_call_on_the_page_of_protocols_exists_and_every_function_is_on_it():
    text = (DOCS / "protocols.md").read_text(encoding="utf-8")
    named = set()
    for row in re.findall(r"^\| .* \|$", text, flags=re.MULTILINE):
        named |= set(re.findall(r"`([a-z][a-z0-9_]+)`", row.split(" | ")[1]))
    assert named - {"call"} <= set(evaluation.__all__)
    functions = {name for name in evaluation.__all__ if name[0].islower()}
    helpers = {"backfill_order", "bootstrap_mean", "class_distance", "cosine_histograms", "entropy"}
    helpers |= {"gallery_search", "identification", "identity_weights", "interval", "margin"}
    helpers |= {"pair_list_scores", "roc_curve", "tar_at_far", "tar_name", "template_subjects"}
    assert functions - helpers <= named
