"""The tree on many machines: the nodes of a level are clustered as Ray Data rows, each with the seed it has anyway.

So the tree is the same as `edge_pretrain.cluster.build_tree` makes in one process.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from edge_pretrain.cluster import Embeddings, Split, split_node


def ray_splits(embeddings: Embeddings, jobs: Iterable[Split]) -> list[Embeddings]:
    """For `build_tree(..., splits=ray_splits)`: the centroids of every node, clustered on the Ray cluster."""
    import ray

    shared = ray.put(embeddings)

    def cluster(row: dict[str, Any]) -> dict[str, Any]:
        job = Split(row["level"], row["node"], np.asarray(row["members"]), row["fanout"], row["seed"])
        centroids = split_node(ray.get(shared), job)
        # Flat, because a column of ragged matrices is no Arrow type.
        return {"order": row["order"], "centroids": centroids.ravel(), "count": len(centroids)}

    rows = [
        {
            "order": i,
            "level": j.level,
            "node": j.node,
            "members": j.members,
            "fanout": j.fanout,
            "seed": j.seed,
        }
        for i, j in enumerate(jobs)
    ]
    found = sorted(ray.data.from_items(rows).map(cluster).take_all(), key=lambda row: int(row["order"]))
    return [np.asarray(row["centroids"], dtype=np.float32).reshape(int(row["count"]), -1) for row in found]
