"""A page of results, its sections with tables, charts and pictures, as HTML and as Markdown."""

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from code_common.reporting.album import Figure, shrink
from code_common.reporting.charts import Chart, to_svg

WIDEST = 1200  # pixels of the longer side of an embedded picture
THUMBNAIL = 250  # figures whose pictures are no larger stand in narrow columns
STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem;
  color: #222; background: #fff; overflow-wrap: anywhere }
h1 { line-height: 1.2 } h2 { margin: 2.5rem 0 .5rem; border-bottom: 2px solid #0072B2 }
nav a { margin-right: 1rem } a { color: #005a8e }
.scroll { overflow-x: auto } table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: right;
  overflow-wrap: normal; white-space: nowrap }
th { white-space: normal; vertical-align: bottom }
.words td { text-align: left; white-space: normal; vertical-align: top }
.words td:last-child { overflow-wrap: anywhere; min-width: 12rem }
td:first-child, th:first-child { text-align: left }
th button { font: inherit; font-weight: bold; border: 0; background: none; padding: 0;
  cursor: pointer; color: #005a8e }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
figure { margin: 1.5rem 0 } figcaption { margin-bottom: .5rem }
.panels { display: grid; gap: .75rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least)), 1fr)) }
.panels button { display: block; width: 100%; border: 0; padding: 0; background: none;
  text-align: left; font: inherit; font-size: .875rem; color: inherit; cursor: zoom-in }
.panels button[aria-expanded=true] { grid-column: 1 / -1; cursor: zoom-out }
.panels img, .charts svg { display: block; width: 100%; height: auto }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)) }
.charts figure { max-width: 40rem; margin: 0 } nav { margin-bottom: 1rem }
summary { cursor: pointer; font-weight: bold }
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const th = button.parentNode, table = th.closest("table"), body = table.tBodies[0];
  const up = th.getAttribute("aria-sort") !== "ascending", k = th.cellIndex;
  for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => { const t = row.cells[k].textContent, n = parseFloat(t);
    return isNaN(n) || k === 0 ? t : n };
  const rows = [...body.rows].sort((a, b) => { const x = value(a), y = value(b);
    const order = typeof x === typeof y ? (x < y ? -1 : x > y) : typeof x === "number" ? -1 : 1;
    return up ? order : -order });
  body.append(...rows);
};
for (const button of document.querySelectorAll(".panels button")) button.onclick = () =>
  button.setAttribute("aria-expanded", button.getAttribute("aria-expanded") !== "true");
"""


@dataclass(frozen=True)
class Table:
    """A table whose first column holds names; `sortable` by a click on a column's head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    sortable: bool = False
    words: bool = False  # the last column holds words and may wrap


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    figures: Sequence[Figure] = ()
    folded: bool = False  # opened by a click; left out of the Markdown


def _table(table: Table) -> str:
    heads = [html.escape(name) for name in table.head]
    if table.sortable:
        heads = [f"<button>{head}</button>" for head in heads]
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    look = ' class="words"' if table.words else ""
    return (
        f'<div class="scroll"><table{look}><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def embedded(image: np.ndarray) -> str:
    """A picture [H, W, 3] as a data URL (JPEG), at most WIDEST pixels wide and high."""
    buffer = io.BytesIO()
    picture = Image.fromarray(shrink(image, WIDEST))
    picture.save(buffer, "JPEG", quality=90, subsampling=0)  # coloured lines stay sharp
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(figure: Figure) -> str:
    least = "10rem" if all(max(p.image.shape) <= THUMBNAIL for p in figure.panels) else "19rem"
    panels = "".join(
        f'<button aria-expanded="false"><img src="{embedded(p.image)}" '
        f'alt="{html.escape(f"{figure.title}: {p.label}")}">{html.escape(p.label)}</button>'
        for p in figure.panels
    )
    return (
        f"<figure><figcaption><strong>{html.escape(figure.title)}.</strong> "
        f"{html.escape(figure.caption)}</figcaption>"
        f'<div class="panels" style="--least: {least}">{panels}</div></figure>'
    )


def _chart(chart: Chart) -> str:
    title = html.escape(chart.title)
    return f"<figure><figcaption><strong>{title}</strong></figcaption>{to_svg(chart)}</figure>"


def anchor(title: str) -> str:
    """The id of a section, which links use."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def to_html(title: str, sections: Sequence[Section]) -> str:
    """The whole page in one file: nothing is loaded from elsewhere."""
    parts = [f"<h1>{html.escape(title)}</h1>", "<nav>"]
    parts += [f'<a href="#{anchor(s.title)}">{html.escape(s.title)}</a>' for s in sections]
    parts.append("</nav>")
    if any(section.figures for section in sections):
        parts.append("<p>Click a picture to enlarge it.</p>")
    parts += map(_section, sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>"
        + "\n".join(parts)
        + f"<script>{SCRIPT}</script></body></html>\n"
    )


def _section(section: Section) -> str:
    inner = f"<p>{html.escape(section.text)}</p>" if section.text else ""
    inner += "".join(map(_table, section.tables))
    if section.charts:
        inner += f'<div class="charts">{"".join(map(_chart, section.charts))}</div>'
    inner += "".join(map(_figure, section.figures))
    if section.folded:
        inner = f"<details><summary>show</summary>{inner}</details>"
    title = html.escape(section.title)
    return f'<section id="{anchor(section.title)}"><h2>{title}</h2>{inner}</section>'


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The words and tables of the page."""
    lines = [f"# {_in_markdown(title)}", ""]
    for section in sections:
        if section.folded or not (section.text or section.tables):
            continue
        lines += [f"## {section.title}", ""]
        if section.text:
            lines += [_in_markdown(section.text), ""]
        for table in section.tables:
            lines.append("| " + " | ".join(map(_in_markdown, table.head)) + " |")
            lines.append("|---" * len(table.head) + "|")
            for row in table.rows:
                cells = [_in_markdown(cell).replace("|", "\\|") or " " for cell in row]
                lines.append("| " + " | ".join(cells) + " |")
            lines.append("")
    return "\n".join(lines)


def _in_markdown(text: str) -> str:
    """Text on one line that is no HTML, as the names of files may be."""
    return " ".join(text.splitlines()).replace("<", "&lt;")
