"""What a tree looks like: python -m edge_pretrain.tree_report -o RUN [--recipe demo] writes RUN/tree.json, tree.html.

Sizes and balance of every level, and of every node its documents and titles of some of them. The page holds all it
shows and loads nothing.
"""

import argparse
import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from edge_pretrain.cluster import ClusterTree

EXAMPLES = 5
TITLE = 60  # characters


def title(text: str) -> str:
    """The first sentence, cut short."""
    first = text.strip().split(". ", 1)[0].split("\n", 1)[0]
    return first if len(first) <= TITLE else first[: TITLE - 1] + "…"


def report(tree: ClusterTree, texts: Sequence[str], leaves: NDArray[np.int64]) -> dict[str, Any]:
    """levels: of each its clusters and how even they are; root: the nodes with `size`, `titles` and `children`.

    balance: the largest share of a node among its siblings, times the fanout: 1 is even; the mean over parents.
    """
    levels = []
    for level, counts in enumerate(tree.documents, start=1):
        siblings = counts.reshape(-1, tree.fanout).astype(np.float64)
        siblings = siblings[siblings.sum(1) > 0]
        shares = siblings.max(1) / siblings.sum(1) * tree.fanout
        filled = counts[counts > 0]
        sizes = {
            "smallest": int(filled.min()),
            "median": float(np.median(filled)),
            "largest": int(filled.max()),
        }
        levels.append(
            {"level": level, "clusters": len(counts), "empty": int((counts == 0).sum())}
            | sizes
            | {"balance": round(float(shares.mean()), 3)}
        )
    order = np.argsort(leaves, kind="stable")
    ordered = leaves[order]

    def node(level: int, number: int) -> dict[str, Any]:
        width = tree.fanout ** (tree.depth - level)
        low, high = np.searchsorted(ordered, [number * width, (number + 1) * width])
        titles: dict[str, None] = {}
        for index in order[low:high]:
            titles[title(texts[index])] = None
            if len(titles) == EXAMPLES:
                break
        found: dict[str, Any] = {"node": number, "size": int(high - low), "titles": list(titles)}
        if level < tree.depth:
            children = (node(level + 1, number * tree.fanout + i) for i in range(tree.fanout))
            found["children"] = [child for child in children if child["size"]]
        return found

    return {"fanout": tree.fanout, "documents": len(texts), "levels": levels, "root": node(0, 0)}


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#202124}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}
details{margin-left:1.2rem;border-left:1px solid #ddd;padding-left:.5rem}summary{cursor:pointer}
.leaf{margin-left:2.2rem}.size{color:#1a73e8;font-variant-numeric:tabular-nums}.titles{color:#5f6368}
input{font:inherit;padding:.3rem .6rem;width:100%;box-sizing:border-box}.hidden{display:none}"""
_SCRIPT = """const find=document.getElementById('find');find.addEventListener('input',()=>{
const wanted=find.value.toLowerCase();for(const e of document.querySelectorAll('[data-text]')){
const hit=!wanted||e.dataset.text.includes(wanted);e.classList.toggle('hidden',!hit);
if(e.tagName==='DETAILS'&&e.dataset.depth!=='0')e.open=!!wanted&&hit}});"""


def page(found: dict[str, Any]) -> str:
    """The report as one HTML page."""
    keys = ("level", "clusters", "empty", "smallest", "median", "largest", "balance")
    rows = "".join(
        "<tr>" + "".join(f"<td>{level[key]}" for key in keys) + "</tr>" for level in found["levels"]
    )
    head = "".join(f"<th>{key}" for key in keys)

    def text_of(node: dict[str, Any]) -> str:
        own = " ".join(node["titles"]).lower()
        return " ".join([own, *(text_of(child) for child in node.get("children", ()))])

    def entry(node: dict[str, Any], depth: int) -> str:
        name = "root" if depth == 0 else f"node {node['node']}"
        titles = html.escape(" · ".join(node["titles"]))
        line = f'{name} <span class="size">{node["size"]}</span> <span class="titles">{titles}</span>'
        data = html.escape(text_of(node), quote=True)
        if not node.get("children"):
            return f'<div class="leaf" data-text="{data}">{line}</div>'
        inner = "".join(entry(child, depth + 1) for child in node["children"])
        opened = " open" if depth == 0 else ""
        return f'<details data-depth="{depth}" data-text="{data}"{opened}><summary>{line}</summary>{inner}</details>'

    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Memory tree</title>'
        f"<style>{_STYLE}</style><h1>Memory tree</h1><p>{found['documents']} documents, {found['fanout']} children a "
        "node. balance: the largest child's share times the fanout, 1 is even.</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
        '<input id="find" type="search" placeholder="find a title" aria-label="find a title">'
        f"{entry(found['root'], 0)}<script>{_SCRIPT}</script></html>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edge_pretrain.tree_report", description=__doc__.splitlines()[0]
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, a directory or Hugging Face id")
    options = parser.parse_args(arguments)
    from edge_pretrain.pipeline import Run, embedded
    from edge_pretrain.recipe import load_recipe

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        run = Run(load_recipe(options.recipe), options.seed, options.out, console)
        embed = embedded(run.directory / "prepared", options.embedder, console)
        prepared = run.prepare(embed)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    found = report(prepared.tree, prepared.texts, prepared.leaves)
    (options.out / "tree.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "tree.html").write_text(page(found), encoding="utf-8")
    console.print(f"wrote {options.out / 'tree.json'} and tree.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
