"""Which cases of crossed parameters the quick run holds, and that a run tells what it leaves out."""

import itertools

import pytest
import selection

A, B, C = ("a", "b", "c"), (1, 2, 3, 4), ({"x": 1}, {"x": 2})
CASES = [dict(zip("abc", values, strict=True)) for values in itertools.product(A, B, C)]


def test_each_value_comes_up():
    few = selection.covering(CASES, "name")
    for name, values in zip("abc", (A, B, C), strict=True):
        assert {id(CASES[i][name]) for i in few} == {id(value) for value in values}
    assert len(few) < 7
    assert selection.covering(CASES, "name") == few, "the same in every process"


def test_each_pair_comes_up():
    some = selection.covering(CASES, "name", together=2)
    for one, other in itertools.combinations("abc", 2):
        pairs = {(CASES[i][one], id(CASES[i][other])) for i in some}
        assert pairs == {(case[one], id(case[other])) for case in CASES}
    assert len(some) < 16


@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("b", B)
@pytest.mark.parametrize("c", C)
def test_crossed(a, b, c, request):
    """Of these 24 cases a few are quick, and not all others slow."""
    name = request.node.nodeid.partition("[")[0] + "["
    kinds = [selection.kind(i) for i in request.session.items if i.nodeid.startswith(name)]
    assert kinds.count("quick") < 7
    assert kinds.count("slow") < 16


def test_what_is_left_out_is_told(request):
    class Config:
        stash = pytest.Stash()

    lines = []
    selection.report_left_out(Config, lines.append)
    selection.note_left_out(Config, [request.node] * 2000)
    selection.report_left_out(Config, lines.append)
    assert lines == ["left out: 2,000 quick tests of 1 files; they run by pytest -n auto"]
