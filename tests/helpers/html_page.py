"""An HTML page taken apart by the standard library's parser."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}


@dataclass
class Node:
    """An element, in the order of the page."""

    tag: str
    attributes: dict
    inside: list = field(default_factory=list)
    """Elements and text."""

    @property
    def words(self):
        parts = (one if isinstance(one, str) else one.words for one in self.inside)
        return " ".join(" ".join(parts).split())

    def all(self, *tags):
        """Every element of these tags below this one."""
        below = [one for one in self.inside if isinstance(one, Node)]
        return [
            found for one in below for found in ([one] if one.tag in tags else []) + one.all(*tags)
        ]


class Page(HTMLParser):
    """Checks nesting; collects ids, tags, text and attributes."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.tags, self.text, self.links = [], [], [], []
        self.root = Node("", {})
        self.open = [self.root]
        self.feed(html)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action", "data"):
                self.links.append(value)
            assert not name.startswith("on")
        node = Node(tag, dict(attrs))
        self.open[-1].inside.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        if self.open[-1].tag not in ("", "style"):
            self.text.append(data)
            self.open[-1].inside.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())
