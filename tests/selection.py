"""Which tests a run holds, and what it says about those that it leaves out.

Slow are the tests that say so (``@pytest.mark.slow``). Of a test over crossed parameters the quick run takes a few
cases, in which each value of each parameter comes up, and the slow run so many more that each pair of values does. What
is left has nothing but other triples; it runs with ``--every-case``.
"""

import itertools
import random

import pytest

FEW = 12  # so many cases are run whatever they cross
LEFT_OUT = pytest.StashKey()
COMMANDS = {
    "slow": "pytest -n auto -m slow",
    "quick": "pytest -n auto",
    "further": "pytest -n auto -m further --every-case",
}


def covering(cases, strength, seed, chosen=()):
    """Indices of some cases, the chosen ones among them, in which all values of all parameters come up (strength 1), or
    all pairs of values (2).

    A case is a dictionary of parameters. Two values are the same where they are the same object.
    """
    parts = [set(itertools.combinations([(name, id(v)) for name, v in case.items()], strength)) for case in cases]
    chosen = set(chosen)
    missing = set().union(*parts).difference(*(parts[i] for i in chosen))
    order = random.Random(seed).sample(range(len(cases)), len(cases))
    for wanted in range(max(map(len, parts)), 0, -1):  # first the cases that have most to give
        for i in order:
            if len(parts[i] & missing) >= wanted:
                chosen.add(i)
                missing -= parts[i]
    return chosen


def mark_cases(items):
    """Of tests over crossed parameters: marks slow what the quick run leaves out, and further what the slow one does
    as well."""
    tests = {}
    for item in items:
        if len(item.callspec.params if hasattr(item, "callspec") else ()) > 1:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, found in tests.items():
        if len(found) <= FEW:
            continue
        cases = [item.callspec.params for item in found]
        few = covering(cases, 1, name)
        more = covering(cases, 2, name, few)
        for i in set(range(len(found))) - few:
            found[i].add_marker(pytest.mark.slow if i in more else pytest.mark.further)


def leave_out_further_cases(config, items):
    further = [item for item in items if item.get_closest_marker("further")]
    if further and not config.getoption("every_case"):
        items[:] = [item for item in items if item.get_closest_marker("further") is None]
        config.hook.pytest_deselected(items=further)


def kind(item):
    return next((name for name in ("further", "slow") if item.get_closest_marker(name)), "quick")


def note_left_out(config, items):
    """Adds to what this run leaves out, by kind and file."""
    left_out = config.stash.setdefault(LEFT_OUT, {name: {} for name in COMMANDS})
    for item in items:
        files = left_out[kind(item)]
        files[item.location[0]] = files.get(item.location[0], 0) + 1


def report_left_out(config, write_line):
    for name, files in config.stash.get(LEFT_OUT, {}).items():
        if files:
            count = sum(files.values())
            write_line(f"left out: {count:,} {name} tests of {len(files)} files; they run by {COMMANDS[name]}")
