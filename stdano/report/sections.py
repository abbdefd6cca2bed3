"""The sections of a report that run folders tell by themselves."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence

from ..analysis import interval, published
from ..analysis.published import Alphas
from ..nodes.candidates import names_in
from ..pictures import curves, heatmap
from ..settings import SearchSettings
from ..terminal import quoted
from ..training.report import best_row
from .content import Code, Picture, Section, Table, per_cent, value
from .runs import Run

Methods = Mapping[str, Sequence[Run]]
MOST_CURVES = 4  # runs that get a picture of their own


def results(runs: Sequence[Run], methods: Methods) -> Section:
    """What came out: each run, and means over seeds."""
    rows = []
    for run in runs:
        last, best = run.rows[-1], best_row(run.rows)
        settings, epochs = run.settings, f"{last['epoch']:.0f} of {run.most_epochs}"
        rate, seconds = value(last["firing_rate"], 3), value(sum(row["seconds"] for row in run.rows), 3)
        accuracies = per_cent(last["test_accuracy"]), per_cent(best["test_accuracy"]), int(best["epoch"])
        what = "search" if run.is_search else "training"
        data = settings.data.data, run.network, settings.model.T
        rows.append([run.name, what, run.neurons, *data, settings.optimiser.seed, epochs, *accuracies, rate, seconds])
    columns = ["run", "what", "neurons", "data", "network", "T", "seed", "epochs", "last accuracy", "best accuracy"]
    each = Table("runs", "Runs", [*columns, "best epoch", "firing rate", "seconds"], rows)
    text = [
        "Accuracy is that of the test samples, after the last epoch and in the best one. The best epoch is chosen by "
        "the test samples, so the last one is the fairer number. Firing rate: spikes a neuron and time step, on the "
        "test samples after the last epoch."
    ]
    if not methods:
        return Section("Results", text, [each])
    means = []
    for name, same in methods.items():
        accuracy = interval([run.rows[-1]["test_accuracy"] for run in same])
        mean_rate = statistics.mean(run.rows[-1]["firing_rate"] for run in same)
        half = "" if len(same) == 1 else per_cent(accuracy.half)
        strings = "; ".join(dict.fromkeys(run.string for run in same))
        means.append([name, strings, len(same), per_cent(accuracy.mean), half, value(mean_rate, 3)])
    columns = ["method", "neurons, one a layer", "seeds", "mean last accuracy", "95 % interval, ±", "firing rate"]
    text.append(
        "Intervals are those of the mean over seeds, by Student's t. A single seed has none, and then says little of a "
        "difference. Digits: 0 LIF, 1 LLIF, 2 SLIF."
    )
    return Section("Results", text, [Table("methods", "Methods over seeds", columns, means), each])


def progress(runs: Sequence[Run], methods: Methods) -> Section:
    """Curves over epochs (figures 2, 4 and 5 of the paper)."""
    pictures = []
    if methods:
        figure = curves.test_curves({name: [run.rows for run in same] for name, same in methods.items()})
        alt = "Test accuracy and loss over the epochs, a line for each of " + ", ".join(methods)
        pictures.append(Picture("curves", "Mean over seeds, and the range where there are several", alt, figure))
    for number, run in enumerate(runs[:MOST_CURVES], start=1):
        alt = f"Loss and accuracy of {run.name} on training and test samples over the epochs"
        pictures.append(Picture(f"curve-{number}", run.name, alt, curves.training(run.rows, run.name)))
    more = len(runs) - MOST_CURVES
    text = [f"{more} more runs have a picture in their folder, curve.png."] if more > 0 else []
    return Section("Progress", text, pictures)


def architecture(searches: Sequence[Run]) -> Section | None:
    """What searches have chosen (figures 6 to 9), and how much they agree."""
    if not searches:
        return None
    items: list[Picture | Table] = []
    for number, run in enumerate(searches, start=1):
        assert isinstance(run.settings, SearchSettings)
        last, candidates = run.history[-1], run.candidates
        title = run.name + heatmap.named(last["neurons"])
        figure = heatmap.heatmap(last["alphas"], candidates, last["neurons"], title)
        alt = f"Alpha of each layer and candidate after epoch {last['epoch']}; the choice is {last['neurons']}"
        items.append(Picture(f"alpha-{number}", f"Alpha after epoch {last['epoch']}, the choice outlined", alt, figure))
        alt = "Share of each candidate in each layer, and the entropy of the shares, over the epochs"
        figure = heatmap.history(run.history, candidates)
        items.append(Picture(f"alpha-history-{number}", "The way there", alt, figure))
        theirs = published_alphas(run)
        if theirs is not None:
            items.append(published_picture(theirs, f"alpha-paper-{number}"))
    text = [
        "The candidate with the largest alpha is chosen; with the selection by perturbation the one whose removal "
        "hurts most. Digits: 0 LIF, 1 LLIF, 2 SLIF, in order of execution."
    ]
    strings = [run.neurons for run in searches]
    choices = [names_in(string) for string in strings]
    if len(searches) > 1 and len(set(map(len, choices))) == 1:
        shares = [sum(map(str.__eq__, a, b)) / len(a) for a, b in itertools.combinations(choices, 2)]
        counts = {len(run.candidates) for run in searches}
        text.append(
            f"Two of these {len(searches)} searches agree in {100 * statistics.mean(shares):.0f} % of the layers on "
            "average" + (f"; by chance it would be one in {counts.pop()}." if len(counts) == 1 else ".")
        )
        alt = "For each layer, how many searches chose which neuron: " + ", ".join(strings)
        items.append(Picture("agreement", "Choices of all searches", alt, heatmap.agreement(strings)))
    return Section("Architecture", text, items)


def published_alphas(run: Run) -> Alphas | None:
    """The paper's search with the same data, network and T, where there is one."""
    data, model = run.settings.data.data, run.settings.model
    known = (data, model.model, model.T) in published.searches()
    return published.alphas(data, model.model, model.T) if known else None


def published_picture(theirs: Alphas, name: str) -> Picture:
    """A search of the paper, drawn like one's own."""
    doubtful = {
        (layer, candidate)
        for layer, marks in enumerate(theirs.uncertain)
        for candidate, mark in zip(theirs.candidates, marks, strict=True)
        if mark
    }
    title = f"the paper's: {theirs.neurons}"
    figure = heatmap.heatmap(theirs.alphas, theirs.candidates, theirs.neurons, title, doubtful)
    caption = f"The paper's search (figure {theirs.figure}): {theirs.dataset}, {theirs.model}, T = {theirs.T}. "
    return Picture(name, caption + theirs.note, f"Alphas that the paper gives; it chose {theirs.neurons}", figure)


def paper(runs: Sequence[Run], methods: Methods) -> Section | None:
    """The paper's figures for the same data and network beside one's own, and its comparison rows."""
    where = list(dict.fromkeys((run.settings.data.data, run.network) for run in runs))
    rows: list[list[object]] = []
    for data, model in where:
        theirs = [
            row
            for number in published.TABLES
            for row in published.table(number)
            if row.dataset == data and (row.network == model or not (row.neurons or row.candidates))
        ]
        if not theirs:
            continue
        for name, same in methods.items():
            first = same[0].settings
            if (first.data.data, same[0].network) == (data, model):
                mean = statistics.mean(run.rows[-1]["test_accuracy"] for run in same)
                rows.append([name, data, model, first.model.T, per_cent(mean), "measured here", ""])
        unique = {(row.method, row.network, row.T, row.accuracy): row for row in theirs}
        for row in unique.values():
            tables = f"{row.source}, table{'s' * (len(row.tables) > 1)} {', '.join(map(str, row.tables))}"
            T = "" if row.T is None else row.T
            rows.append([row.method, row.dataset, row.network, T, per_cent(row.accuracy), tables, row.neurons])
    if not rows:
        return None
    columns = ["method", "data", "network", "T", "test accuracy", "source", "neurons"]
    table = Table("paper", "Measured here and given in the paper", columns, rows)
    text = ["Rows of other works are as the paper gives them. Where its table does not say T, the cell is empty."]
    return Section("Beside the paper", text, [table])


def settings(runs: Sequence[Run]) -> Section:
    """All settings; where runs differ, each value with the runs that have it."""
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.flat):
        values: dict[str, list[str]] = {}
        for run in runs:
            if name in run.flat:
                given = run.flat[name]
                text = ", ".join(given) if isinstance(given, tuple) else str(given)
                values.setdefault(text, []).append(run.name)
        several = [f"{text or 'none'}: {', '.join(names)}" for text, names in values.items()]
        rows.append([name, "; ".join(several) if len(values) > 1 else next(iter(values))])
    table = Table("settings", "Settings of all runs", ["setting", "value"], rows)
    return Section("Settings", ["As in the runs' settings.json."], [table])


def environment(facts: Sequence[tuple[str, str]]) -> Section:
    """Where the report was made."""
    text = ["The machine and the versions that this report was made with; runs may have had others."]
    return Section("Environment", text, [Table("environment", "Environment", ["what", "value"], facts)])


def commands(runs: Sequence[Run]) -> Section:
    """What repeats the runs."""
    lines = [
        f"stdano {'search' if run.is_search else 'train'} --config {quoted(run.folder / 'settings.json')}"
        + f"  # of a network given in Python, {run.given}: stdano.training or stdano.search with model=..."
        * bool(run.given)
        for run in runs
    ]
    seeds = len({run.settings.optimiser.seed for run in runs})
    text = [
        f"Every setting is in the file, the seed too; here are runs of {seeds} seed{'s' * (seeds > 1)}. On the CPU of "
        "the same machine a run gives the same bits again."
    ]
    return Section("Repeat it", text, [Code("\n".join(lines))])


def unfinished(runs: Sequence[Run]) -> list[str]:
    """Names of runs that have epochs to go."""
    return [run.name for run in runs if len(run.rows) < run.most_epochs and not run.architecture]
