"""The page around the figures: one HTML file that brings its style, its script and its pictures along."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GENERATOR = '<meta name="generator" content="xmr report">'
# nothing is ever fetched: what the page shows is in it
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class NotDrawnError(Exception):
    """Why a figure is missing, as a clause: the page says so in its place."""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence about what is shown, and the figures as HTML."""

    anchor: str
    heading: str
    lead: str
    body: str


def assemble(title: str, lead: str, tiles: Sequence[tuple[str, str]], sections: Sequence[Section], data: Any) -> str:
    """The whole page. `data` is what the script reads, as JSON."""
    links = "".join(f'<li><a href="#{of.anchor}">{escape(of.heading)}</a></li>' for of in sections)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'{GENERATOR}\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_part('page.css')}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to the figures</a>\n'
        f'<header class="top"><h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        f'<dl class="tiles">{facts}</dl></header>\n'
        f'<nav aria-label="Figures"><ol>{links}</ol></nav>\n'
        f'<main id="content">\n{"".join(map(_section, sections))}</main>\n'
        f'<script type="application/json" id="data">{_json(data)}</script>\n'
        f"<script>\n{_part('page.js')}</script>\n</body>\n</html>\n"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table of ready HTML cells; it scrolls by itself where it is wider than the page."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def figure(chart: str, caption: str, legend: Mapping[str, str] | None = None, kind: str = "") -> str:
    """A chart with what it shows below it; `caption` is HTML, `legend` names the classes of its colours."""
    names = "".join(
        f'<li class="{colour}"><span class="swatch"></span>{escape(name)}</li>'
        for name, colour in (legend or {}).items()
    )
    keys = f'<ul class="legend">{names}</ul>' if names else ""
    return f'<figure class="plot {kind}"><figcaption>{caption}</figcaption>{chart}{keys}</figure>'


def missing(reason: str) -> str:
    return f'<p class="missing">Not drawn: {escape(reason)}.</p>'


def _section(of: Section) -> str:
    return (
        f'<section id="{of.anchor}" aria-labelledby="{of.anchor}-heading">\n<h2 id="{of.anchor}-heading">'
        f'{escape(of.heading)}</h2>\n<p class="lead">{escape(of.lead)}</p>\n{of.body}\n</section>\n'
    )


def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """JSON that no name in it can end the script element of."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
