"""Which tests a run holds, and what it says about those that it leaves out.

Slow are the tests that say so (``@pytest.mark.slow``). Of a test over crossed parameters, a few cases in which each
value of each parameter comes up are as quick as the test; those in which each pair of values comes up are slow; what
is left is exhaustive. Of mutations, which try the tests and not the library, two thirds and more are exhaustive.
"""

import itertools
import random

import pytest

FEW = 12  # so many cases are run whatever they cross
LEFT_OUT = pytest.StashKey()
COMMANDS = {"quick": "pytest -n auto"} | {name: f"pytest -n auto -m {name}" for name in ("slow", "exhaustive")}


def covering(cases, seed, together=1):
    """Indices of some cases in which all values of all parameters come up.

    A case is a dictionary of parameters. Two values are the same where they are the same object. ``together``: so many
    parameters at a time, each combination of their values that there is.
    """
    values = [
        set(itertools.combinations(sorted((name, id(value)) for name, value in case.items()), together))
        for case in cases
    ]
    missing, chosen = set().union(*values), set()
    order = random.Random(seed).sample(range(len(cases)), len(cases))
    for wanted in range(max(map(len, values)), 0, -1):  # first the cases that have most to give
        for i in order:
            if len(values[i] & missing) >= wanted:
                chosen.add(i)
                missing -= values[i]
    return chosen


def sample(mutations, each=3):
    """Mutations as parameters, of which one of so many is slow and the others are exhaustive."""
    return [
        pytest.param(name, marks=pytest.mark.exhaustive if number % each else pytest.mark.slow)
        for number, name in enumerate(mutations)
    ]


def mark_cases(items):
    """Marks what the quick run and the slow run leave out of tests over crossed parameters, and sorts."""
    tests = {}
    for item in items:
        if len(item.callspec.params if hasattr(item, "callspec") else ()) > 1 and kind(item) == "quick":
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, found in tests.items():
        if len(found) > FEW:
            cases = [item.callspec.params for item in found]
            quick = covering(cases, name)
            slow = quick | covering(cases, name, together=2)
            for i in set(range(len(found))) - quick:
                found[i].add_marker(pytest.mark.slow if i in slow else pytest.mark.exhaustive)
    with_quick = {item.path for item in items if kind(item) == "quick"}
    items.sort(key=lambda item: item.path in with_quick)  # what takes long first, so that all processes end together


def kind(item):
    return next((name for name in ("slow", "exhaustive") if item.get_closest_marker(name)), "quick")


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
