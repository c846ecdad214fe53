import subprocess
import sys
from pathlib import Path

import torch

JOB = Path(__file__).with_name("ddp_job.py")


def assert_close(a: object, b: object, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=lambda text: f"{where}: {text}")
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_close(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def test_two_processes_train_what_one_does(tmp_path: Path):
    """Anchor, blocks and both optimisers within 1e-5 after 20 steps; batches of 7, so that the shares are uneven."""
    subprocess.run([sys.executable, JOB, tmp_path / "one.pt"], check=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, JOB, tmp_path / "two.pt"], check=True)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert one.pop("held") == 16
    assert two.pop("held") == 8, "each process holds half of the blocks"
    assert one["sparse"]["steps"][0].item() > 0, "the generic memory was read too"
    assert_close(one, two)
