"""The report in a real browser: nothing runs over, at any width, in light, dark and on paper.

Headless Chromium has no window narrower than 500 px, so each page stands in frames of the widths
to try, and a script beside them (the pages themselves run none) measures rectangles.
"""

import html
import json
import re
import subprocess
from pathlib import Path

import pdf
import png
import pytest
from html_page import Page

from dpmlm.release import render_report

CHROMIUM = Path("/usr/bin/chromium")
PAPER = 718
"""CSS pixels between Chromium's margins on A4."""
PAPER_HEIGHT = 1047

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed: the report was shown to no browser"
)

MEASURE = """
function far(a, b) {
  return a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 2
    || b.bottom <= a.top + 2;
}
function paper(page) {  // the print rules hold, those of the screen do not
  for (const rule of page.styleSheets[0].cssRules) {
    if (!rule.media) continue;
    if (rule.media.mediaText == 'print') rule.media.mediaText = 'all';
    else if (rule.media.mediaText.includes('screen')) rule.media.mediaText = 'not all';
  }
}
function parts(colour) { return colour.match(/[0-9.]+/g).map(Number); }
function light(colour) {  // WCAG 2.2, relative luminance
  const [r, g, b] = parts(colour).map(
    c => c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(view, e) {  // the nearest colour behind an element, or the shape behind a label
  const chart = e.closest('svg'), mine = e.getBoundingClientRect();
  const x = (mine.left + mine.right) / 2, y = (mine.top + mine.bottom) / 2;
  const behind = chart ? [...chart.querySelectorAll('rect')].filter(shape => {
    const own = shape.getBoundingClientRect();
    return own.left < x && x < own.right && own.top < y && y < own.bottom;
  }) : [];
  if (behind.length) return view.getComputedStyle(behind.at(-1)).fill;
  for (let at = e; at; at = at.parentElement) {
    const found = view.getComputedStyle(at).backgroundColor, alpha = parts(found)[3] ?? 1;
    if (alpha) return alpha == 1 ? found : 'half transparent';
  }
  return 'rgb(255, 255, 255)';
}
function contrasts(page, view) {  // texts that are hard to read, each with its ratio
  const texts = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT), found = [];
  let count = 0;
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement, style = view.getComputedStyle(e);
    const box = e.getBoundingClientRect();
    if (!texts.currentNode.data.trim() || !box.width || box.right < 0) continue;
    if (e.closest('title, desc, style')) continue;
    count += 1;
    const colour = e.closest('svg') ? style.fill : style.color, behind = ground(view, e);
    const [dim, bright] = [light(colour), light(behind)].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dim + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    if (!(ratio >= (large ? 3 : 4.5)))
      found.push(`contrast ${ratio.toFixed(2)} of ${colour} on ${behind}: `
        + texts.currentNode.data.trim().slice(0, 40));
  }
  return [count, found];
}
function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement, wrong = [];
  if (frame.dataset.paper) paper(page);
  const view = frame.contentWindow, all = s => [...page.querySelectorAll(s)];
  const name = e => e.tagName + '.' + (e.className.baseVal ?? e.className) + ' '
    + e.textContent.trim().slice(0, 40);
  const box = e => e.getBoundingClientRect();
  if (root.scrollWidth > root.clientWidth) wrong.push('page is ' + root.scrollWidth + ' px wide');
  for (const e of all('main *')) {
    const scrolls = e.parentElement.closest('.scroll, figure');
    if (!scrolls && box(e).right > root.clientWidth + 1) wrong.push('past the edge: ' + name(e));
    if (frame.dataset.paper && scrolls && box(e).right > root.clientWidth + 1)
      wrong.push('past the paper: ' + name(e));
  }
  for (const cell of all('td, th')) {
    if (view.getComputedStyle(cell).position == 'absolute' || !box(cell).width) continue;
    if (cell.closest('thead') && box(cell).right < 0) continue;
    const inside = page.createRange();
    inside.selectNodeContents(cell);
    if ([...inside.getClientRects()].some(r => r.right > box(cell).right + 1))
      wrong.push('over the next column: ' + name(cell));
  }
  for (const chart of all('svg.chart')) {
    const texts = [...chart.querySelectorAll('text')], lines = chart.querySelectorAll('line.limit');
    texts.forEach((one, i) => {
      for (const other of texts.slice(i + 1))
        if (!far(box(one), box(other)))
          wrong.push('two texts touch: ' + name(one) + ' / ' + name(other));
      for (const line of lines)
        if (!far(box(one), box(line))) wrong.push('a line runs through: ' + name(one));
      if (box(one).left < box(chart).left - 1 || box(one).right > box(chart).right + 1)
        wrong.push('out of the drawing: ' + name(one));
    });
  }
  if (frame.dataset.paper) {
    for (const e of all('details:not([open])')) wrong.push('closed on paper: ' + name(e));
    for (const row of all('tr')) {
      if (view.getComputedStyle(row).breakInside != 'avoid') wrong.push('is cut: ' + name(row));
      if (box(row).height > HEIGHT) wrong.push('higher than a page: ' + name(row));
    }
  }
  const [texts, hard] = contrasts(page, view);
  wrong.push(...hard);
  const paper_colour = view.getComputedStyle(page.querySelector('main')).backgroundColor;
  return {at: frame.title, wrong, texts, ground: paper_colour,
          charts: all('svg.chart').length};
}
onload = () => {
  const found = [...document.querySelectorAll('iframe')].map(measure);
  document.body.textContent = JSON.stringify(found);
};
"""


def _run(folder, *arguments):
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def _frames(pages, widths):
    for name, page in pages.items():
        for width in widths:
            paper = ' data-paper="yes"' if width == PAPER else ""
            yield (
                f'<iframe title="{name} {width}"{paper} srcdoc="{html.escape(page)}" '
                f'style="width:{width}px;height:900px;border:0"></iframe>'
            )


def measured(folder, pages, widths, *, dark=False):
    """What is wrong with each page at each width: [{"at", "wrong", "ground", "charts"}]."""
    host = folder / "host.html"
    script = MEASURE.replace("HEIGHT", str(PAPER_HEIGHT))
    frames = "".join(_frames(pages, widths))
    host.write_text(f"<!doctype html><meta charset=utf-8><script>{script}</script><body>{frames}")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    answer = _run(folder, scheme, "--dump-dom", host.as_uri())
    assert "Refused to" not in answer.stderr  # nothing that the content policy would block
    body = re.search(r"<body>(.*)</body>", answer.stdout, re.DOTALL)[1]
    found = json.loads(html.unescape(body))
    assert len(found) == len(pages) * len(widths)
    return found


def _brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def _pages(data):
    return {
        "auditor": render_report(data, private=True),
        "public": render_report(data, private=False),
    }


def _troubles(found):
    return [(one["at"], wrong) for one in found for wrong in one["wrong"]]


def test_nothing_runs_over_narrow_wide_and_on_paper(report_data, facts, whole_evidence, tmp_path):
    facts["audit"] = whole_evidence
    found = measured(tmp_path, _pages(report_data()), (320, 1000, PAPER))
    assert not (wrong := _troubles(found)), wrong
    assert all(one["charts"] >= 4 for one in found)
    assert all(_brightness(one["ground"]) > 250 for one in found)


@pytest.mark.full
def test_all_text_can_be_read_in_the_dark(report_data, facts, whole_evidence, tmp_path):
    facts["audit"] = whole_evidence
    pale = (
        "<!doctype html><main style='background:#171b22'><p style='color:#6a7482'>Pale.</p></main>"
    )
    pages = {"auditor": render_report(report_data(), private=True), "pale": pale}
    found, control = measured(tmp_path, pages, (1000,), dark=True)
    assert not found["wrong"]
    assert found["texts"] > 800
    assert _brightness(found["ground"]) < 60
    assert [one.partition(" of ")[0] for one in control["wrong"]] == ["contrast 3.64"]


def _with_marked_rows(page):
    """Links to its own number at both ends of each cell of a row of a table's body, as heads are
    repeated on every page; details as if folded by hand."""
    number = 0

    def row(found):
        nonlocal number
        if 'scope="col"' in found[0]:
            return found[0]
        number += 1
        link = f'<a href="http://row/{number}">.</a>'
        return re.sub(
            r"(<t[hd][^>]*>)(.*?)(</t[hd]>)", rf"\1{link}\2{link}\3", found[0], flags=re.DOTALL
        )

    marked = re.sub(r"<tr>.*?</tr>", row, page, flags=re.DOTALL)
    return marked.replace("<details open>", "<details>"), number


@pytest.mark.full
def test_on_paper_every_heading_is_there_and_no_row_is_cut(report_data, tmp_path):
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    html = render_report(report_data(), private=True)
    marked, rows = _with_marked_rows(html)
    page.write_text(marked)
    outline = "--generate-pdf-document-outline"
    _run(tmp_path, f"--print-to-pdf={paper}", "--no-pdf-header-footer", outline, page.as_uri())
    printed = pdf.pages(paper.read_bytes())
    assert 5 <= len(printed) <= 40
    places = {}
    for number, links in enumerate(printed):
        for link in links:
            places.setdefault(link, set()).add(number)
    assert len(places) == rows > 100  # the folded ones too
    assert not {row: where for row, where in places.items() if len(where) > 1}
    titles = pdf.headings(paper.read_bytes())
    wanted = {one.words for one in Page(html).root.all("h1", "h2", "h3")}
    assert len(wanted) > 25
    assert not wanted - {" ".join(title.split()) for title in titles}


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("case", ["passing", "leaking", "long names"])
def test_nothing_runs_over_anywhere(report_data, facts, whole_evidence, tmp_path, dark, case):
    facts["audit"] = whole_evidence
    changed = {}
    if case == "leaking":
        subjects = whole_evidence["subjects"]
        subjects["target"], subjects["untrained"] = subjects["control"], None
        whole_evidence["power"]["status"] = "not shown"
    if case == "long names":
        changed = {"name": "notes_of_" + "clinic" * 40, "versions": {"library" * 30: "1" * 90}}
        whole_evidence["subjects"]["target"]["gating"]["rejected"] = None
    widths = (320, 380, 500, 768, 1000, 1600, PAPER)
    found = measured(tmp_path, _pages(report_data(**changed)), widths, dark=dark)
    assert not (wrong := _troubles(found)), wrong
    for one in found:
        paper = one["at"].endswith(f" {PAPER}")
        assert (_brightness(one["ground"]) < 60) == (dark and not paper), one["at"]


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_drawn(report_data, tmp_path, dark):
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render_report(report_data(), private=True))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    _run(tmp_path, scheme, f"--screenshot={picture}", "--window-size=1000,1200", page.as_uri())
    data = picture.read_bytes()
    assert len(data) > 40_000  # a blank page is about 12 kB
    shades = [sum(pixel) / 3 for row in png.rows(data) for pixel in row]
    middle = sorted(shades)[len(shades) // 2]
    assert middle < 60 if dark else middle > 200
    assert sum(abs(shade - middle) > 80 for shade in shades) > len(shades) / 100  # and written on
