"""What made a result: seed, versions, configuration and git revision."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("edge-runtime", "torch", "numpy", "tokenizers", "transformers", "scikit-learn", "mmap-ninja")


def git_revision() -> str | None:
    """The commit of this source tree, with "-dirty" where files differ from it; None outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def provenance(seed: int, configuration: dict[str, Any]) -> dict[str, Any]:
    """A JSON object to be written beside a result."""
    return {
        "seed": seed,
        "configuration": configuration,
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "git_revision": git_revision(),
    }
