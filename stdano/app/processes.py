"""How many processes there are, and which of them this is, before Fabric is there to ask."""

from __future__ import annotations

import os

from ..settings import RunSettings


def processes(run: RunSettings) -> int:
    """How many there are under torchrun, or will be once Fabric has started them."""
    return max(int(os.environ.get("WORLD_SIZE", 1)), max(1, run.devices) * run.num_nodes)


def is_main_process() -> bool:
    """Whether this is the one that prints."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
