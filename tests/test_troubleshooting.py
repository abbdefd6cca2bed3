"""docs/troubleshooting.md has every warning and every error that explains itself, and none that is no more.

An entry is a bold line of code, with "..." for what changes. Messages come from the sources as they are written there,
by ast. Plain errors of arguments ("tau must be ..., got ...") need no entry: the message says all.
"""

import ast
import builtins
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
FILES = [*sorted((ROOT / "stdano").rglob("*.py")), *sorted((ROOT / "stdano_kernels").rglob("*.py")), ROOT / "setup.py"]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
OTHERS = "## Messages of PyTorch"  # which no source of stdano has
REFUSALS = ("fail", "refuse")  # functions that raise, with the place of a declaration in front


def normal(text):
    """One way to write a template: what is filled in is "...", and white space is one blank."""
    return re.sub(r"(\.\.\. ?)+\.\.\.", "...", re.sub(r"\s+", " ", text)).strip()


def template(node, names):
    """The text of an expression with "..." for what changes; ``names``: of the variables that hold text."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(value, names) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left, names) + template(node.right, names)
    if isinstance(node, (ast.FormattedValue, ast.Name)):
        name = node.value if isinstance(node, ast.FormattedValue) else node
        return names.get(name.id, "...") if isinstance(name, ast.Name) else "..."
    return "..."


def is_text(node):
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def functions(tree):
    """A list of nodes for each function, those of the functions in it left to these, and one for the rest."""
    lists, left = [[]], [(tree, 0)]
    while left:
        node, number = left.pop()
        if isinstance(node, FUNCTIONS):
            lists.append([])
            number = len(lists) - 1
        lists[number].append(node)
        left += [(child, number) for child in ast.iter_child_nodes(node)]
    return lists


def texts_of(nodes):
    """The variables that are set to a text of several words, which errors and warnings are put together from."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and is_text(node.value):
            text = template(node.value, {})
            if " " in text:
                names.setdefault(node.targets[0].id, text)
    return names


def is_error(name):
    found = getattr(builtins, name, None)
    return name.endswith(("Error", "Missing", "Compile")) or (isinstance(found, type) and issubclass(found, Exception))


def message_of(call):
    """What a call gives the user to read; None for a call that gives nothing."""
    if not call.args:
        return None
    name = ast.unparse(call.func)
    first = call.args[0]
    if name == "print":
        return first if is_text(first) and template(first, {}).strip().startswith("stdano:") else None
    if name == "warnings.warn" or name in REFUSALS:
        return first
    says = is_text(first) and (name == "super().__init__" or is_error(name.split(".")[-1]))
    return first if says else None


@cache
def messages():
    """``[(place, what gives it, message)]`` of all sources, and every text in them."""
    found, every = [], set()
    for file in FILES:
        for nodes in functions(ast.parse(file.read_text())):
            names = texts_of(nodes)
            for node in nodes:
                if is_text(node):
                    every |= {normal(template(node, names)), normal(template(node, {}))}
                text = message_of(node) if isinstance(node, ast.Call) else None
                if text is not None:
                    place = f"{file.relative_to(ROOT)}:{node.lineno}"
                    found.append((place, ast.unparse(node.func), normal(template(text, names))))
    return found, every


def is_plain(kind, message):
    """Whether an error of an argument says what is allowed, and is at fault with that one argument alone."""
    return kind in ("ValueError", "TypeError") and re.search(r"\bmust\b", message) is not None


def says_nothing(message):
    """Texts that only put others together: "{path}: {error}"."""
    return len(re.sub(r"[^a-z]", "", message)) < 8


@cache
def entries():
    """What is on the page, and, for an entry that ends in "...", its beginning."""
    page = PAGE.read_text().split(OTHERS)[0]
    found = {normal(text) for _, text in re.findall(r"^\*\*(`+) ?(.+?) ?\1\*\*$", page, re.DOTALL | re.MULTILINE)}
    return {entry: entry[:-3] if entry.endswith("...") and not says_nothing(entry) else entry for entry in found}


def fits(entry, message):
    """Whether an entry is a message, or, where it ends in "...", its beginning."""
    start = entries()[entry]
    return entry == message or (start != entry and message.startswith(start))


def test_every_message_has_an_entry():
    missing = {
        f"{place}: {message}"
        for place, kind, message in messages()[0]
        if not is_plain(kind, message) and not says_nothing(message) and not any(fits(e, message) for e in entries())
    }
    assert not missing, "docs/troubleshooting.md has no entry for\n" + "\n".join(sorted(missing))


def test_every_entry_is_a_message():
    stale = {entry for entry in entries() if not any(fits(entry, text) for text in messages()[1])}
    assert len(entries()) > 100
    assert not stale, "no source has these messages of docs/troubleshooting.md:\n" + "\n".join(sorted(stale))


def test_the_collection_knows_each_kind_of_message():
    """What is found by hand in the sources, so that a change of the collection cannot empty it."""
    kinds = {kind for _, kind, _ in messages()[0]}
    assert {"warnings.warn", "RuntimeError", "OSError", "fail", "refuse", "print", "super().__init__"} <= kinds
    calls = sum(file.read_text().count("warnings.warn(") for file in FILES)
    warnings = [message for _, kind, message in messages()[0] if kind == "warnings.warn"]
    assert len(warnings) == calls > 7 and not any(map(says_nothing, warnings))
