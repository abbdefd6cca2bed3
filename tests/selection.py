"""Which tests the quick run holds, which the slow one, and what a run says about those that it left out.

Slow are the tests that say so (``@pytest.mark.slow``), and of a test over several crossed parameters all cases but a
few, in which each value of each parameter comes up.
"""

import random

import pytest

FEW = 12  # so many cases are run whatever they cross
LEFT_OUT = pytest.StashKey()
COMMANDS = {"slow": "pytest -n auto -m slow", "quick": "pytest -n auto"}


def few_cases(cases, seed):
    """Indices of some cases among which every value of every parameter occurs, no two alike where that can be.

    A case is a dictionary of parameters; values are the same where they are the same object.
    """
    order = random.Random(seed).sample(range(len(cases)), len(cases))
    values = [{(name, id(value)) for name, value in cases[i].items()} for i in order]
    missing, chosen = set().union(*values), []
    while missing:
        best = max(range(len(order)), key=lambda i: len(values[i] & missing))
        missing -= values[best]
        chosen.append(order[best])
    return sorted(chosen)


def mark_crossed_cases(items):
    """Marks all but a few cases of each test over crossed parameters slow."""
    tests = {}
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else ()
        if len(parameters) > 1 and not is_slow(item):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, cases in tests.items():
        if len(cases) > FEW:
            for i in set(range(len(cases))).difference(few_cases([case.callspec.params for case in cases], name)):
                cases[i].add_marker(pytest.mark.slow)


def is_slow(item):
    return item.get_closest_marker("slow") is not None


def note_left_out(config, items):
    """Adds to what this run leaves out, by kind and file."""
    left_out = config.stash.setdefault(LEFT_OUT, {"slow": {}, "quick": {}})
    for item in items:
        of_kind = left_out["slow" if is_slow(item) else "quick"]
        of_kind[item.location[0]] = of_kind.get(item.location[0], 0) + 1


def report_left_out(config, write_line):
    for kind, files in config.stash.get(LEFT_OUT, {}).items():
        if files:
            write_line(
                f"left out: {sum(files.values()):,} {kind} tests of {len(files)} files; they run by {COMMANDS[kind]}"
            )
