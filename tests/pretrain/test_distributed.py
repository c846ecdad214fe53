import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

JOB = Path(__file__).with_name("ddp_job.py")


def assert_close(a: object, b: object, atol: float, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, atol=atol, rtol=0, msg=lambda text: f"{where}: {text}")
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key], atol, f"{where}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_close(x, y, atol, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("one") / "one.pt"
    subprocess.run([sys.executable, JOB, path, "ddp", "0"], check=True)
    return dict(torch.load(path, weights_only=True))


@pytest.mark.parametrize(
    ("sharding", "rows", "microbatch"), [("ddp", 40, 0), ("fsdp", 20, 0), ("ddp", 40, 1), ("fsdp", 20, 2)]
)
def test_two_processes_train_what_one_does(
    tmp_path: Path, one: dict[str, Any], sharding: str, rows: int, microbatch: int
):
    """Anchor, blocks and both optimisers within 1e-5 after 20 steps; batches of 7, so that the shares are uneven.

    Within 1e-4 where the shares are computed in pieces."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, JOB, tmp_path / "two.pt", sharding, str(microbatch)], check=True)
    one, two = dict(one), torch.load(tmp_path / "two.pt", weights_only=True)
    assert one.pop("held") == 16
    assert two.pop("held") == 8, "each process holds half of the blocks"
    assert one.pop("own_rows") == 40
    assert two.pop("own_rows") == rows, "under FSDP2 each process holds half of the anchor"
    assert one["sparse"]["steps"][0].item() > 0, "the generic memory was read too"
    # Adam divides a gradient by its own size: where it is all but 0, the rounding of another order of sums shows.
    atol = 1e-4 if microbatch else 1e-5
    assert_close(one, two, atol)
    assert_close(two["collected"], two["anchor"], 0.0)
