"""Whether a page says in a sentence what each of its figures and tables shows."""

import re

SENTENCE = re.compile(r"(\S+ ){4,}\S*[.?!]$")
"""Five words or more, ended."""


def unexplained(page):
    """Figures without a caption, tables whose description is no sentence, lone charts."""
    elements = page.root.all(*set(page.tags))
    named = {one.attributes["id"]: one for one in elements if "id" in one.attributes}
    wrong, in_figures = [], []
    for figure in page.root.all("figure"):
        captions = figure.all("figcaption")
        in_figures += figure.all("table", "svg")
        if not captions or not SENTENCE.search(captions[0].words):
            wrong.append(f"figure: {figure.words[:60]}")
    for table in page.root.all("table"):
        if any(table is one for one in in_figures):
            continue
        says = named.get(table.attributes.get("aria-describedby"))
        if says is None or not SENTENCE.search(says.words):
            wrong.append(f"table: {table.words[:60]}")
    for chart in page.root.all("svg"):
        if not any(chart is one for one in in_figures):
            wrong.append(f"chart: {chart.words[:60]}")
    for head in (head for row in page.root.all("thead") for head in row.all("th")):
        if not head.words:
            wrong.append("a table head without words")
    for entry in (entry for one in page.root.all("dl") for entry in one.all("div")):
        if [bool(part.words) for part in entry.all("dt", "dd")] != [True] * 3:
            wrong.append(f"figure without a note: {entry.words}")
    return wrong
