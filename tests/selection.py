"""Which tests a run holds, and what it says about those that it leaves out.

Slow are the tests that say so (``@pytest.mark.slow``), and, of a test over crossed parameters, all cases but a few in
which each value of each parameter comes up.
"""

import random

import pytest

FEW = 12  # so many cases are run whatever they cross
LEFT_OUT = pytest.StashKey()
COMMANDS = {"slow": "pytest -n auto -m slow", "quick": "pytest -n auto"}


def covering(cases, seed):
    """Indices of some cases in which all values of all parameters come up.

    A case is a dictionary of parameters. Two values are the same where they are the same object.
    """
    values = [{(name, id(value)) for name, value in case.items()} for case in cases]
    missing, chosen = set().union(*values), set()
    order = random.Random(seed).sample(range(len(cases)), len(cases))
    for wanted in range(max(map(len, values)), 0, -1):  # first the cases that have most to give
        for i in order:
            if len(values[i] & missing) >= wanted:
                chosen.add(i)
                missing -= values[i]
    return chosen


def mark_cases(items):
    """Marks slow what the quick run leaves out of tests over crossed parameters."""
    tests = {}
    for item in items:
        if len(item.callspec.params if hasattr(item, "callspec") else ()) > 1:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, found in tests.items():
        if len(found) > FEW:
            few = covering([item.callspec.params for item in found], name)
            for i in set(range(len(found))) - few:
                found[i].add_marker(pytest.mark.slow)


def kind(item):
    return "slow" if item.get_closest_marker("slow") else "quick"


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
