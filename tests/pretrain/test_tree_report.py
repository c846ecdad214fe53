import os
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from test_cluster import points

from edge_pretrain.cluster import build_tree
from edge_pretrain.tree_report import page, report, title


@pytest.fixture(scope="module")
def found() -> dict:
    data = points(600)
    tree = build_tree(data, 4, 2, seed=1)
    return report(tree, [f'<b>Text</b> & "number" {i}. More.' for i in range(600)], tree.lookup(data))


def test_sizes_add_up_at_every_level(found: dict):
    root = found["root"]
    assert root["size"] == found["documents"] == 600
    assert sum(child["size"] for child in root["children"]) == 600
    for child in root["children"]:
        assert sum(grandchild["size"] for grandchild in child["children"]) == child["size"]
        assert 1 <= len(child["titles"]) <= 5
    level = found["levels"][0]
    sizes = [child["size"] for child in root["children"]]
    assert (level["smallest"], level["largest"]) == (min(sizes), max(sizes))
    assert level["balance"] == pytest.approx(max(sizes) / 600 * 4, abs=1e-3)


def test_titles_are_the_first_sentences_cut_short():
    assert title("Hafnium. It is a metal. ") == "Hafnium"
    assert len(title("x" * 100)) == 60


def test_the_page_is_well_formed_escaped_and_loads_nothing(found: dict):
    class Check(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.leaves, self.urls = [], 0, []

        def handle_starttag(self, tag: str, attributes: list) -> None:
            self.urls += [value for name, value in attributes if name in ("src", "href")]
            self.leaves += ("class", "leaf") in attributes
            if tag in ("details", "summary", "div", "span"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag in ("details", "summary", "div", "span"):
                assert self.open.pop() == tag

    text, check = page(found), Check()
    check.feed(text)
    assert not check.open
    assert not check.urls
    assert check.leaves == sum(len(child["children"]) for child in found["root"]["children"])
    assert "<b>Text" not in text
    assert "&lt;b&gt;Text&lt;/b&gt; &amp; &quot;number&quot;" in text


RAY = """
import ray, numpy as np
from test_cluster import points
from edge_pretrain.cluster import build_tree
from edge_pretrain.cluster_ray import ray_splits
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
one, many = build_tree(points(2000), 4, 3, 1), build_tree(points(2000), 4, 3, 1, ray_splits)
for a, b in zip(one.centroids + one.documents, many.centroids + many.documents, strict=True):
    assert np.array_equal(a, b)
"""


@pytest.mark.slow
def test_ray_builds_the_same_tree():
    pytest.importorskip("ray", reason="ray is not installed; edge-runtime[ray] brings it")
    # A process of its own: Ray starts servers and takes over signal handlers.
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
    subprocess.run([sys.executable, "-c", RAY], check=True, env=environment, timeout=240)
