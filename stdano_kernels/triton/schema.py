"""The schemas of ``torch.ops.stdano_triton``: those of the compiled operators, without whose library it works."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

NAMESPACE = "stdano_triton"
_HEADER = Path(__file__).parent.parent / "include" / "schemas.h"


def schemas() -> list[str]:
    calls = re.findall(r'm\.def\(((?:\s*"[^"]*")+)\)', _HEADER.read_text())
    return ["".join(re.findall(r'"([^"]*)"', call)) for call in calls]


def define(operators: Mapping[str, Callable]) -> torch.library.Library:
    """The operators, implemented for CUDA tensors (ROCm's are torch's CUDA tensors too)."""
    library = torch.library.Library(NAMESPACE, "DEF")
    for schema in schemas():
        library.define(schema)
        name = schema.partition("(")[0]
        library.impl(name, operators[name], "CUDA")
    return library
