"""Which cases of crossed parameters a run holds, and that a run tells what it leaves out."""

import itertools

import pytest
import selection

A, B, C = ("a", "b", "c"), (1, 2, 3, 4), ({"x": 1}, {"x": 2})
CASES = [dict(zip("abc", values, strict=True)) for values in itertools.product(A, B, C)]


def found(chosen, *names):
    return {tuple(id(CASES[i][name]) for name in names) for i in chosen}


def test_each_value_and_each_pair_comes_up():
    few = selection.covering(CASES, 1, "name")
    assert (len(found(few, "a")), len(found(few, "b")), len(found(few, "c"))) == (3, 4, 2) and len(few) < 7
    more = selection.covering(CASES, 2, "name", few)
    assert few < more and len(more) < len(CASES)
    assert [len(found(more, *pair)) for pair in ("ab", "ac", "bc")] == [12, 6, 8]
    assert selection.covering(CASES, 2, "name", few) == more, "the same in every process"


@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("b", B)
@pytest.mark.parametrize("c", C)
def test_crossed(a, b, c, request):
    """Of these 24 cases some are quick, some slow, and some left to --every-case."""
    same = [i for i in request.session.items if i.nodeid.startswith(request.node.nodeid.partition("[")[0] + "[")]
    assert selection.kind(request.node) in ("quick", "slow", "further")
    if not request.config.getoption("every_case"):
        assert len(same) < 24


def test_what_is_left_out_is_told(request):
    class Config:
        stash = pytest.Stash()

    lines = []
    selection.report_left_out(Config, lines.append)
    selection.note_left_out(Config, [request.node] * 2000)
    selection.report_left_out(Config, lines.append)
    assert lines == ["left out: 2,000 quick tests of 1 files; they run by pytest -n auto"]
