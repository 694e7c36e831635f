"""How well each direction works: recall over k, how the ranks spread, and some queries with what they find."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.train.evaluate.remarks import FAITHFUL, MISSING, remarks
from xmr.train.report.charts import Line, bar_chart, line_chart
from xmr.train.report.items import direction, shown, tag
from xmr.train.report.page import NotDrawnError, figure, table
from xmr.train.report.rankings import NOTHING_TO_RANK, Ranking, chance

N_KS = 48  # places of a recall curve
BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)  # the last ranks of the bars
MAX_EXAMPLES = 36  # queries in the page, of all directions
EXAMPLES = (("among the best", 0.1), ("in the middle", 0.5), ("among the worst", 0.9))  # share of the queries before it
N_HITS = 5  # of an example

Pairs = Sequence[tuple[Ranking, Ranking]]
Record = Mapping[str, Any]

CAPTIONS = {FAITHFUL: "The same, as published systems computed them"}
FIGURES = {
    "R@1": "R@1 %",
    "R@5": "R@5 %",
    "R@10": "R@10 %",
    "median_rank": "median rank",
    "mean_rank": "mean rank",
    "mAP": "mAP %",
    "AP@50": "AP@50 %",
    "rsum": "rsum",
}


def metric_table(records: Sequence[Record]) -> str:
    """Every direction with its figures, below each of them what a random order gives, and what to know of them."""
    directions = [record for record in records if "kind" not in record]
    if not directions:
        raise NotDrawnError(_reasons(records) or NOTHING_TO_RANK)
    shown_figures = {name: how for name, how in FIGURES.items() if any(name in record for record in directions)}
    rows = [
        [
            direction(record["query"], record["gallery"]),
            f"{record['n_queries']:,}",
            f"{record['n_gallery']:,}",
            *(_cell(name, record) for name in shown_figures),
        ]
        for record in directions
    ]
    columns = ("query to gallery", "queries", "items", *shown_figures.values())
    said = "".join(f"<li>{escape(sentence)}.</li>" for sentence in remarks(records))
    told = f'<ul class="remarks">{said}</ul>' if said else ""
    return table(columns, rows, "Retrieval; a random order in small print") + told


def other_tables(records: Sequence[Record], columns: Mapping[str, Sequence[tuple[str, str, str]]]) -> str:
    """A table for each further kind of records, its columns as the command prints them."""
    published = [
        {**figures, "query": record["query"], "gallery": record["gallery"], "kind": FAITHFUL, "system": system}
        for record in records
        for system, figures in record.get(FAITHFUL, {}).items()
    ]
    others = [record for record in [*records, *published] if record.get("kind") not in (None, MISSING)]
    made = []
    for kind in dict.fromkeys(str(record["kind"]) for record in others):
        of_kind = [record for record in others if record["kind"] == kind]
        shown_columns = columns.get(kind) or [(name, name, "") for name in of_kind[0] if name != "kind"]
        rows = [[_value(record, place, how) for _, place, how in shown_columns] for record in of_kind]
        made.append(table([heading for heading, _, _ in shown_columns], rows, CAPTIONS.get(kind, kind.capitalize())))
    return "".join(made)


def recall_curves(pairs: Pairs) -> str:
    """A chart for every two modalities: recall@k of both directions over k, and what chance gives."""
    _need(pairs)
    return _grid([_recall_chart(pair) for pair in pairs])


def rank_histograms(pairs: Pairs) -> str:
    """For each direction, how many of the queries have their best right answer in which ranks."""
    _need(pairs)
    return _grid([_histogram(ranking) for pair in pairs for ranking in pair])


def examples(pairs: Pairs, seed: int = 0) -> str:
    """Queries of good, middling and bad rank with their first hits; which ones is drawn, not chosen."""
    _need(pairs)
    rankings = [ranking for pair in pairs for ranking in pair]
    n_each = max(1, min(len(EXAMPLES), MAX_EXAMPLES // len(rankings)))
    return "".join(_examples_of(ranking, EXAMPLES[:n_each], seed) for ranking in rankings[:MAX_EXAMPLES])


def recall_at(ranks: NDArray[np.int64], ks: Sequence[int]) -> list[float]:
    """Recall@k in percent at each k."""
    in_order = np.sort(ranks)
    return [100 * float(np.searchsorted(in_order, k, side="right")) / len(in_order) for k in ks]


def bin_shares(ranks: NDArray[np.int64], n_gallery: int) -> tuple[list[str], list[float]]:
    """The names of the bars and the percent of the ranks in each; the last bar ends with the gallery."""
    ends = [end for end in BINS if end < n_gallery] + [n_gallery]
    starts = [1, *(end + 1 for end in ends[:-1])]
    names = [str(end) if start == end else f"≤{end}" for start, end in zip(starts, ends, strict=True)]
    shares = [100 * float(np.mean((ranks >= a) & (ranks <= b))) for a, b in zip(starts, ends, strict=True)]
    return names, shares


def log_spaced(n: int) -> list[int]:
    """Whole numbers from 1 to n, about evenly many of each size."""
    return sorted({round(math.exp(part)) for part in np.linspace(0, math.log(n), N_KS)} | {1, n})


def _need(pairs: Pairs) -> None:
    if not pairs:
        raise NotDrawnError(NOTHING_TO_RANK)


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _cell(name: str, record: Record) -> str:
    value, random = record.get(name), (record.get("random") or {}).get(name)
    if value is None:
        return _without(str(record.get(MISSING, {}).get(name, "nobody computed it")))
    beside = "" if random is None else f'<small title="random order">{random:.1f}</small>'
    is_percent = FIGURES[name].endswith("%")
    bar = f'<i class="meter" style="--share:{max(0.0, min(100.0, value)):.1f}%"></i>' if is_percent else ""
    return f"{value:.1f}{bar}{beside}"


def _reasons(records: Sequence[Record]) -> str:
    return "; ".join(dict.fromkeys(str(record["reason"]) for record in records if record.get("kind") == MISSING))


def _value(record: Record, place: str, how: str) -> str:
    """What a record has at a place, or why not; a place that says nothing of this record is blank."""
    value: Any = record
    for key in place.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is not None:
        return escape(format(value, how) if isinstance(value, (int, float, str)) else str(value))
    reason = record.get(MISSING, {}).get(place.split(".")[-1])
    return "" if reason is None else _without(reason)


def _without(reason: str) -> str:
    return f'<span class="missing" title="{escape(reason)}">missing</span>'


def _recall_chart(pair: tuple[Ranking, Ranking]) -> str:
    lines = []
    for ranking in pair:
        ks = log_spaced(ranking.n_gallery)
        name, colour = f"{ranking.query} to {ranking.gallery}", f"c-{ranking.query}"
        lines.append(Line(f"{name}, chance", ks, chance(ranking.n_right, ranking.n_gallery, ks), colour, True))
        lines.append(Line(name, ks, recall_at(ranking.ranks, ks), colour))
    a, b = pair[0].query, pair[0].gallery
    title = f"Recall at k, {a} and {b}: " + "; ".join(
        f"{ranking.query} to {ranking.gallery} {recall_at(ranking.ranks, [10])[0]:.0f} % at 10" for ranking in pair
    )
    chart = line_chart(lines, title=title, x_label="k", y_label="recall at k, %", is_log=True, y_range=(0, 100))
    legend = {line.name: line.colour for line in lines if not line.is_reference} | {"chance": "c-series-0 reference"}
    return figure(chart, f"{tag(a)} and {tag(b)}", legend)


def _histogram(ranking: Ranking) -> str:
    names, shares = bin_shares(ranking.ranks, ranking.n_gallery)
    title = (
        f"Ranks of {ranking.query} to {ranking.gallery}: {shares[0]:.0f} % of the queries find a right answer first, "
        f"the median rank is {np.median(ranking.ranks):g} of {ranking.n_gallery}"
    )
    chart = bar_chart(names, shares, title=title, x_label="rank of the best right answer", colour=f"c-{ranking.query}")
    drawn = (
        f", {len(ranking.ranks):,} of {ranking.n_queries:,} queries" if len(ranking.ranks) < ranking.n_queries else ""
    )
    return figure(chart, f"{direction(ranking.query, ranking.gallery)}{drawn}")


def _examples_of(ranking: Ranking, wanted: Sequence[tuple[str, float]], seed: int) -> str:
    order = np.random.default_rng(seed).permutation(len(ranking.ranks))  # which of equal ranks is shown
    order = order[np.argsort(ranking.ranks[order], kind="stable")]
    numbers = [int(order[min(len(order) - 1, int(share * len(order)))]) for _, share in wanted]
    names = dict(zip(numbers, [name for name, _ in wanted], strict=True))  # each query once
    made = [_example(ranking, number, name) for number, name in names.items()]
    heading = direction(ranking.query, ranking.gallery)
    return f'<h3>{heading}</h3><div class="examples">{"".join(made)}</div>'


def _example(ranking: Ranking, number: int, which: str) -> str:
    place, rank = int(ranking.asked[number]), int(ranking.ranks[number])
    key = ranking.queries.keys[place]
    hits = "".join(_hit(ranking, row, score, key) for row, score in ranking.hits(place, N_HITS))
    query = shown(ranking.query, ranking.queries.contents[place], key)
    return (
        f'<article class="example"><div class="query"><p class="rank">Query {which}: '
        f'rank <b>{rank:,}</b> of {ranking.n_gallery:,}</p>{query}</div><ol class="hits">{hits}</ol></article>'
    )


def _hit(ranking: Ranking, row: int, score: float, key: str) -> str:
    of = ranking.ranked
    kind, verdict = ("right", "✓ right") if of.keys[row] == key else ("wrong", "not right")
    return (
        f'<li class="hit {kind}">{shown(ranking.gallery, of.contents[row], of.keys[row])}'
        f'<p class="score">{score:.3f} <span>{verdict}</span></p></li>'
    )
