"""The code in README.md and docs/ runs as it stands there, and every command is one that the command line takes."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
NEEDS = {
    "README.md": ["spikingjelly"],
    "from_spikingjelly.md": ["spikingjelly", "sklearn"],
    "from_snntorch.md": ["snntorch", "sklearn"],
    "exchange.md": ["nir", "onnxruntime", "onnxscript", "sinabs", "spikingjelly"],
}


def blocks(page, language):
    """The lines of a page with what is not in a block of that language blank, each line where it is on the page."""
    inside = False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = line == f"```{language}"
            line = ""
        yield line if inside else ""


def commands(page):
    """The lines of its shell blocks, continued ones as one."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def with_code():
    """The pages that have Python on them; what trains for a while is slow."""
    slow = {"README", "exchange", "own_neuron", "search"}
    for page in PAGES:
        if any(blocks(page, "python")):
            yield pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in slow))


@pytest.mark.parametrize("page", [*with_code()])
def test_the_blocks_of_a_page_are_a_script_that_runs(page, tmp_path, monkeypatch):
    for package in NEEDS.get(page.name, ()):
        pytest.importorskip(package)
    file = tmp_path / f"{page.stem.lower()}_page.py"  # a declaration's errors name lines of a file
    file.write_text("\n".join(blocks(page, "python")) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    __import__(file.stem)  # as a module, so that what is declared there can be imported
    monkeypatch.delitem(sys.modules, file.stem)


def test_commands_have_options_that_exist(monkeypatch):
    """Each is read by the command's own parser and then stopped; presets and neurons must be real, folders need not."""
    pytest.importorskip("tyro")
    from stdano.app import cli, options

    class Read(BaseException):
        """Not an Exception, which the command line would turn into a message."""

    def read(*arguments, parse=options.parse):
        parse(*arguments)
        raise Read

    def start(kind, preset, config, architecture, start=options._start):
        return start(kind, preset, None, None)

    monkeypatch.setattr(options, "parse", read)
    monkeypatch.setattr(options, "_start", start)
    found = [words for page in PAGES for words in commands(page) + inline(page)]
    found = [words[words.index("stdano.cli") :] if "stdano.cli" in words else words for words in found]
    given = [words for words in found if words[0] in ("stdano", "stdano.cli") and words[1] not in ("info", "presets")]
    assert len(given) > 15
    for words in given:
        with pytest.raises(Read):
            print(words, cli.main(words[1:]))


def inline(page):
    """Commands within the text, but those with placeholders for options."""
    text = "".join(page.read_text().split("```")[::2])  # what is between blocks
    found = [shlex.split(code) for code in re.findall(r"`(stdano [a-z-]+ [^`\n]+)`", text) if "..." not in code]
    return [words for words in found if not {"RUN", "--help"} & {*words}]


def test_benchmarks_have_options_that_exist():
    sources = "".join(file.read_text() for file in (ROOT / "benchmarks").glob("*.py"))
    for page in PAGES:
        for words in commands(page):
            if words[0] == "python" and words[1].startswith("benchmarks/"):
                assert (ROOT / words[1]).exists(), words
                missing = [w for w in words if w.startswith("--") and f'"{w.partition("=")[0]}"' not in sources]
                assert not missing, (page.name, words)


def test_what_pip_is_told_to_install_exists():
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = re.findall(r"^(\w+) = ", section, re.MULTILINE)
    for page in PAGES:
        named = re.findall(r"(?:'\.|stdano)\[([a-z,]+)\]", page.read_text())
        assert {name for names in named for name in names.split(",")} <= {*extras}, page.name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md"])
def test_links_lead_somewhere(page):
    """Those of docs/ are checked when the site is built."""
    file = ROOT / page
    for link in re.findall(r"\]\((?!http)([^)#]+)|src=\"([^\"]+)", file.read_text()):
        assert (file.parent / "".join(link)).exists(), link


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_library_draws_the_pictures_of_the_neurons(tmp_path):
    pytest.importorskip("matplotlib")
    draw = runpy.run_path(str(DOCS / "hooks/pictures.py"))["draw"]
    for file in draw(tmp_path):
        assert file.stat().st_size > 10_000 and (DOCS / "pictures" / file.name).exists(), "run docs/hooks/pictures.py"
