"""One conversation: route, fetch, prefill, decode."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from edge_runtime.pager import Lease, Node, StorageKind
from edge_runtime.router import Route
from edge_runtime.runtime import Runtime
from edge_runtime.sampling import Sampler
from edge_runtime.stats import GenerationStats, resident_memory
from edge_runtime.text import Detokenizer, Message, StopTexts

MemoryMode = Literal["fetched", "generic", "none"]
