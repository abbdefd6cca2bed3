"""What type checkers are told of functions is what the functions are; what their users write is checked by them
(typing_user.py, by mypy and pyright in .ci/run)."""

import ast
import inspect
import re
from pathlib import Path
from typing import get_type_hints

import pytest

import stdano
import stdano_kernels
from stdano_kernels import signatures

OPTIONS = {"return_state", "return_v_seq", "return_sequences"}


@pytest.mark.parametrize("name", ["LIF", "LLIF", "SLIF"])
def test_the_arguments_are_those_of_the_function(name):
    function = getattr(stdano_kernels, name.lower())
    typed = get_type_hints(getattr(signatures, name))  # of the base as well
    assert {"x", *typed, *OPTIONS} == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ["LIFState", "LLIFState", "SLIFState"])
def test_the_states_are_those_of_the_function(name):
    tree = ast.parse(Path(signatures.__file__).read_text())
    (declared,) = (c for c in ast.walk(tree) if isinstance(c, ast.ClassDef) and c.name == name)
    fields = [line.target.id for line in declared.body if isinstance(line, ast.AnnAssign)]
    assert tuple(fields) == getattr(stdano_kernels, name)._fields


def test_each_public_name_comes_up_in_what_users_write():
    text = (Path(__file__).parent / "typing_user.py").read_text()
    for name in (*stdano.__all__, *stdano_kernels.__all__):
        assert re.search(rf"\b{name}\b", text), name
