"""Runs on one page: what it says, what lies beside it, and how a browser shows it."""

import csv
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="needs the extra [app]")
pytest.importorskip("jinja2", reason="needs the extra [app]")

import stdano
from stdano.analysis import published
from stdano.pictures import curves, heatmap
from stdano.report import report, sections
from stdano.report.content import Code, Picture, Section, Table, per_cent, value
from stdano.report.page import write
from stdano.report.runs import Run, by_method, read_runs
from stdano.search import search
from stdano.settings import SearchSettings, TrainSettings, replace
from stdano.training import train

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TINY = dict(width=0.1, T=2, epochs=2, batch_size=512, threads=1, accelerator="cpu")


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


ROWS = [
    {"epoch": e, "train_loss": 1 / e, "test_loss": 2 / e, "train_accuracy": 0.9, "test_accuracy": 0.5 + 0.1 * e}
    for e in (1.0, 2.0, 3.0)
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A page with one of everything."""
    folder = tmp_path_factory.mktemp("small")
    table = Table("a", "All <of> it", ["name", "share"], [["x & y", per_cent(0.123456)], ["z", value(12345.6)]])
    picture = Picture("curve", "A curve", 'It "rises"', curves.training(ROWS, "<title> $x$"))
    write(
        folder,
        "A <b>title</b>",
        "about & more",
        [Section("One, two", ["A < b"], [table, picture, Code("stdano --x 'a b'")])],
    )
    return folder


def test_the_page_needs_nothing_else(small):
    text = (small / "report.html").read_text()
    page = Page(text)
    assert not page.all("link")[0]["href"].startswith("http") and len(page.all("link")) == 1
    assert not [a for _, a in page.tags if a.get("src")]
    assert not re.search(r"url\(\s*[\"']?(?![#\"'])", text) and "@import" not in text
    assert all(not a["href"].startswith("http") for a in page.all("a"))
    for a in page.all("a"):
        assert a["href"].startswith("#") or (small / a["href"]).is_file()


def test_names_are_shown_as_they_are(small):
    page = Page((small / "report.html").read_text())
    for words in ("A <b>title</b>", "about & more", "A < b", "All <of> it", "x & y", "stdano --x 'a b'", "<title> $x$"):
        assert words in page.text
    (picture,) = [a for a in page.all("svg") if a.get("role") == "img"]
    assert picture["aria-label"] == 'It "rises"'


def test_numbers_sort_and_are_exact_beside_the_page(small):
    page = Page((small / "report.html").read_text())
    assert [a["data-value"] for a in page.all("td") if "data-value" in a] == ["0.123456", "12345.6"]
    assert "12.35 %" in page.text and "12,346" in page.text
    with open(small / "report" / "a.csv", newline="") as file:
        assert list(csv.reader(file)) == [["name", "share"], ["x & y", "0.123456"], ["z", "12345.6"]]
    assert {path.name for path in (small / "report").iterdir()} == {"a.csv", "curve.png", "curve.svg"}


def test_text_and_lines_of_pictures_take_the_colour_of_the_page(small):
    text = (small / "report.html").read_text()
    assert "currentColor" in text and "#010203" not in text
    assert "#010203" in (small / "report" / "curve.svg").read_text()


def test_identifiers_on_a_page_differ(tmp_path):
    figures = [Picture(name, name, name, curves.training(ROWS, name)) for name in ("a", "b")]
    page = Page(write(tmp_path, "t", "", [Section("s", items=figures)]).read_text())
    names = [a["id"] for _, a in page.tags if "id" in a]
    assert len(names) == len(set(names)) > 10
    for _, attributes in page.tags:
        for key in ("clip-path", "xlink:href"):
            if (target := re.search(r"#([\w-]+)", attributes.get(key, ""))) is not None:
                assert target[1] in names


def test_every_published_search_is_drawn_by_the_same_function():
    """A picture of known numbers: each cell's number, the outlined choice, and what is illegible."""
    for where in published.searches():
        theirs = published.alphas(*where)
        picture = sections.published_picture(theirs, "x")
        axis = picture.figure.axes[0]
        shown = [text.get_text() for text in axis.texts]
        assert axis.yaxis_inverted() and [t.get_text() for t in axis.get_yticklabels()] == ["SLIF", "LLIF", "LIF"]
        assert len(shown) == 3 * len(theirs.neurons) and len(axis.patches) == len(theirs.neurons)
        bold = [text for text in axis.texts if text.get_weight() == "bold"]
        layers = sorted((text.get_position()[0], text.get_position()[1]) for text in bold)
        rows = {"2": 0.5, "1": 1.5, "0": 2.5}
        assert layers == [(n + 0.5, rows[digit]) for n, digit in enumerate(theirs.neurons)]
        illegible = sum(math.isnan(value) for layer in theirs.alphas for value in layer)
        half = sum(map(sum, theirs.uncertain))
        assert shown.count("?") == illegible and sum(text.endswith("?") for text in shown) == illegible + half


def test_searches_that_agree():
    figure = heatmap.agreement(["012", "010", "210"])
    bars = [[bar.get_height() for bar in container] for container in figure.axes[0].containers]
    assert bars == [[2, 0, 2], [0, 3, 0], [1, 0, 1]]


def test_the_paper_beside_ones_own_runs():
    """Of the same data and network: tables 1, 2 and 3, and other works; marked as the paper's."""
    settings = replace(TrainSettings(), data="cifar10", model="resnet18", neurons="SLIF", T=4)
    run = Run("a", None, settings, [{"test_accuracy": 0.75}], [], None)
    (table,) = sections.paper([run], {"SLIF": [run]}).items
    cells = [[cell.text if hasattr(cell, "text") else cell for cell in row] for row in table.rows]
    assert cells[0] == ["SLIF", "cifar10", "resnet18", 4, "75.00 %", "measured here", ""]
    assert ["SLIF", "cifar10", "resnet18", "", "83.83 %", "the paper's, table 1", "2" * 17] in cells
    assert ["ST-DANO", "cifar10", "resnet18", 4, "95.66 %", "the paper's, tables 2, 3, 6", "20002000000001001"] in cells
    assert any(row[0].startswith("Offline LTL") and row[5].startswith("the paper's, table 2") for row in cells)
    assert not any("vgg16" in row for row in cells)
    assert sections.paper([Run("a", None, TrainSettings(), [], [], None)], {}) is None


def test_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"runs must be folders of runs that have finished an epoch.*got .*nowhere"):
        report([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="runs must be one folder or more, got none"):
        report([])
    with pytest.raises(ValueError, match="samples must be 1 or more, got 0"):
        report([tmp_path], samples=0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A search, LIF with two seeds, and SLIF, of a few channels each."""
    folder = tmp_path_factory.mktemp("runs")
    settings = replace(TrainSettings(), **TINY)
    search(replace(SearchSettings(), **TINY, neurons=""), folder / "search")
    for neurons, seed in (("LIF", 0), ("LIF", 1), ("SLIF", 0)):
        train(replace(settings, neurons=neurons, seed=seed), folder / f"{neurons}-seed{seed}")
    return folder


@pytest.mark.slow
class TestOfRuns:
    @pytest.fixture(scope="class")
    @classmethod
    def page(cls, runs):
        told = []
        path = report([runs], samples=20, tell=told.append)
        assert path == runs / "report.html" and "network LIF on test samples" in told
        assert path.stat().st_size < 5e6
        return path

    def test_runs_are_read(self, runs):
        found = read_runs([runs])
        assert [run.name for run in found] == ["LIF-seed0", "LIF-seed1", "SLIF-seed0", "search"]
        assert [run.is_search for run in found] == [False, False, False, True]
        assert [entry["epoch"] for entry in found[3].history] == [1, 2]
        assert found[3].neurons == found[3].architecture.neurons
        assert {name: len(same) for name, same in by_method(found[:3]).items()} == {"LIF": 2, "SLIF": 1}

    def test_every_section_is_there(self, page):
        text = Page(page.read_text()).text
        for title in (
            "Results",
            "Progress",
            "Architecture",
            "Activity",
            "Cost",
            "Gradient share over time",
            "Dynamics",
        ):
            assert title in text
        for title in ("Settings", "Environment", "Repeat it"):
            assert title in text
        assert "stdano search --config" in text and "95 % interval" in text

    def test_tables_hold_what_was_measured(self, page, runs):
        def rows(name):
            with open(runs / "report" / f"{name}.csv", newline="") as file:
                return list(csv.DictReader(file))

        methods = {row["method"]: row for row in rows("methods")}
        last = [run.rows[-1]["test_accuracy"] for run in read_runs([runs])[:2]]
        assert float(methods["LIF"]["mean last accuracy"]) == pytest.approx(sum(last) / 2)
        assert methods["LIF"]["seeds"] == "2" and methods["SLIF"]["95 % interval, ±"] == ""
        half = 12.706 * abs(last[0] - last[1]) / 2
        assert float(methods["LIF"]["95 % interval, ±"]) == pytest.approx(half, rel=1e-4)
        activity = rows("activity")
        assert [row["neuron"] for row in activity] == ["LIF"] * 4 + ["SLIF"] * 4
        for row in rows("shares"):
            assert float(row["first half"]) + float(row["second half"]) == pytest.approx(1)

    def test_without_its_networks_it_says_why(self, runs, tmp_path):
        copy = tmp_path / "copy"
        shutil.copytree(runs / "LIF-seed0", copy)
        (copy / "last.pt").unlink()
        text = Page(report([copy]).read_text()).text
        assert "Left out: LIF" in text and "there is no such file" in text

    def test_a_network_that_was_given_is_not_taken_for_one_of_ours(self, tmp_path):
        own = torch.nn.Sequential(torch.nn.Flatten(2), stdano.LIFNode(), torch.nn.Linear(64, 10))
        train(replace(TrainSettings(), **TINY), tmp_path / "own", model=own)
        page = Page(report([tmp_path / "own"]).read_text())
        with open(tmp_path / "own" / "report" / "runs.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["network"], row["neurons"]) == ("Sequential", "")
        assert "of a network given in Python, Sequential" in page.text and "Left out: own" in page.text

    @pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
    def test_in_a_browser(self, page):
        api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
        with api.sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for width in (400, 1400):
                for scheme in ("light", "dark"):
                    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
                    tab, messages = context.new_page(), []
                    tab.on("console", lambda message, to=messages: to.append(message.text))
                    tab.on("pageerror", lambda error, to=messages: to.append(str(error)))
                    tab.on("request", lambda request, to=messages: to.append(request.url))
                    tab.goto(page.as_uri())
                    assert messages == [page.as_uri()], "it asks for nothing, and there are no errors"
                    assert tab.evaluate("document.documentElement.scrollWidth") == width
                    self.check_pictures(tab, width)
                    self.check_tables(tab)
                    ink = tab.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
                    assert (ink == "rgb(232, 232, 232)") == (scheme == "dark")
                    tab.get_by_role("button", name=re.compile("colours")).click()
                    other = tab.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
                    assert (other == "rgb(232, 232, 232)") == (scheme == "light")
            browser.close()

    def check_pictures(self, tab, width):
        boxes = tab.evaluate(
            "[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().toJSON())"
        )
        assert len(boxes) >= 12 and all(box["width"] > 250 and box["height"] > 100 for box in boxes)
        # Of text in pictures, none is smaller than what a phone shows.
        assert (
            tab.evaluate(
                "Math.min(...[...document.querySelectorAll('figure svg text')].filter(e => e.textContent.trim())"
                ".map(e => e.getBoundingClientRect()).filter(b => b.width).map(b => Math.max(b.width, b.height)))"
            )
            >= 6
        )

    def check_tables(self, tab):
        heading = tab.locator("table").first.locator("thead th").nth(3)
        heading.get_by_role("button").press("Enter")
        assert heading.get_attribute("aria-sort") == "ascending"
        cells = "[...document.querySelector('table').tBodies[0].rows].map(r => Number(r.cells[3].dataset.value))"
        assert tab.evaluate(cells) == sorted(tab.evaluate(cells))
        heading.get_by_role("button").click()
        assert tab.evaluate(cells) == sorted(tab.evaluate(cells), reverse=True)


def test_methods_have_short_names():
    def of(neurons):
        return Run("folder", Path("folder"), replace(TrainSettings(), neurons=neurons), [], [], None)

    runs = [of(neurons) for neurons in ("0000", "0120", "LIF(tau=4)", "ALIF, LIF, LIF, LIF(tau=4)")]
    assert list(by_method(runs)) == ["LIF", "0120", "LIF(tau=4.0)", "folder"]
