"""Models of the Hugging Face hub by their ids, org/name or org/name@revision: downloaded into the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edge_runtime.errors import NotFoundError

ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
# What an export reads. Pickles are never opened, so they are not fetched either.
FILES = ("*.json", "*.safetensors", "chat_template.jinja")


def folder_of(name: str, report: Callable[[str], None]) -> Path:
    """The folder of that name; where there is none and it is a hub id, that of its snapshot.

    Raises:
        NotFoundError: it is not there, or is not to be had; one line says why.
    """
    if Path(name).exists() or not ID.fullmatch(name):
        return Path(name)
    report(f"{name}: from the Hugging Face hub")
    # Here and not above: it takes half a second to import, and a folder needs none of it.
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    model, _, revision = name.partition("@")
    try:
        return Path(
            huggingface_hub.snapshot_download(model, revision=revision or None, allow_patterns=list(FILES))
        )
    except GatedRepoError:
        why = "its owner asks for consent: give it on the model's page, then run `hf auth login`"
    except RevisionNotFoundError:
        why = f"the model has no revision {revision!r}"
    except RepositoryNotFoundError:
        why = "the hub has no such model, or shows it only after `hf auth login`"
    except (OSError, RuntimeError, ValueError) as error:
        why = (
            f"the hub is not reached ({' '.join(str(error).split())[:120] or type(error).__name__}): connect, or copy "
            f"what `hf download {model}` fetches elsewhere and name its folder"
        )
    raise NotFoundError(f"{name}: no such folder, and not downloaded from the Hugging Face hub: {why}")
