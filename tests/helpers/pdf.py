"""Headings and links of a PDF as Chromium writes it, read without a library."""

import re


def objects(data):
    """{number: bytes} of the objects that stand in the file as they are."""
    found = re.findall(rb"\n(\d+) 0 obj\n(.*?)\nendobj", data, re.DOTALL)
    return {int(number): body for number, body in found}


def headings(data):
    """Titles of the outline, in no order."""
    outlined = [body for body in objects(data).values() if b"/Parent" in body]
    found = [re.search(rb"/Title \((.*?)(?<!\\)\)\n", body, re.DOTALL) for body in outlined]
    plain = [_unescaped(one[1]) for one in found if one]
    coded = [re.search(rb"/Title <([0-9A-Fa-f]+)>", body) for body in outlined]
    return plain + [bytes.fromhex(one[1].decode()).decode("utf-16") for one in coded if one]


def _unescaped(literal):
    octal = re.sub(rb"\\([0-7]{3})", lambda one: bytes([int(one[1], 8)]), literal)
    text = re.sub(rb"\\(.)", rb"\1", octal, flags=re.DOTALL)
    return text.decode("utf-16") if text.startswith(b"\xfe\xff") else text.decode("latin-1")


def pages(data):
    """The addresses that the links of each page lead to, page by page."""
    known = objects(data)
    found = [body for body in known.values() if re.search(rb"/Type /Page\n", body)]
    return [
        [
            address[1].decode()
            for number in re.findall(rb"(\d+) 0 R", listed[1] if listed else b"")
            if (address := re.search(rb"/URI \((.*?)\)", known[int(number)]))
        ]
        for listed in (re.search(rb"/Annots \[(.*?)\]", body) for body in found)
    ]
