"""Sentences of our own, by the shape that makes names hard to find, with what has to be found.

Not trained on. The model card says how many the shipped scrubber finds and which it leaves.
"""

from collections.abc import Iterator
from typing import NamedTuple

from dpmlm.scrub.scrubber import Scrubber


class Sentence(NamedTuple):
    """A text and the names in it."""

    shape: str
    """What is hard about it."""
    text: str
    """The text."""
    names: tuple[str, ...]
    """What has to be replaced, where it first stands in the text."""


_UPPER = (
    ("THE PATIENT MARGARET HOLLOWAY WAS SEEN BY DR PETROV.", ("MARGARET HOLLOWAY", "PETROV")),
    ("SHIP TO: JOHN W. PEMBERTON, 14 ELM STREET, DAYTON", ("JOHN W. PEMBERTON", "14 ELM STREET")),
    ("CLAIM FILED BY ROSA DELGADO AGAINST MERCER LTD", ("ROSA DELGADO", "MERCER LTD")),
    ("NAME: FITZGERALD, AGNES\nDOB: 03/04/1951", ("FITZGERALD, AGNES", "03/04/1951")),
    ("I SPOKE TO WENDY YESTERDAY AND SHE IS FINE", ("WENDY",)),
    ("MR. OKONKWO AND MRS. LINDQVIST BOTH SIGNED.", ("OKONKWO", "LINDQVIST")),
)
_LOWER = (
    ("my name is gareth plimpton and i live in leeds", ("gareth plimpton", "leeds")),
    ("please tell susan that i will be late", ("susan",)),
    ("dr. hargreaves said to come back on monday", ("hargreaves", "monday")),
    ("i talked to peter and olivia about it", ("peter", "olivia")),
    ("thanks, rebecca thornton", ("rebecca thornton",)),
    ("can you send the file to michael jensen please", ("michael jensen",)),
    ("we bought it from hanson and sons ltd in bristol", ("hanson and sons ltd", "bristol")),
)
_SIGNATURES = (
    ("See you then.\n\nBest regards,\nHelen Marchetti", ("Helen Marchetti",)),
    ("Cheers,\nTobias", ("Tobias",)),
    (
        "--\nIngrid Halvorsen\nSenior Engineer, Norfjell Systems AS\nPhone: +47 22 12 34 56",
        ("Ingrid Halvorsen", "Norfjell Systems AS", "+47 22 12 34 56"),
    ),
    (
        "Yours sincerely,\n\nProf. Edmund Blackwood\nUniversity of Ashford",
        ("Edmund Blackwood", "University of Ashford"),
    ),
    ("Thanks!\n-- \nvikram <v.rao@example.org>", ("vikram", "v.rao@example.org")),
    ("Sent from my phone\nLucy", ("Lucy",)),
)
_HEADERS = (
    ("From: Claire Donovan <claire@example.com>\nSubject: lunch", ("Claire Donovan",)),
    ("From: cdonovan@example.com (Claire Donovan)\nSubject: lunch", ("Claire Donovan",)),
    (
        "To: Marcus Webb; Priya Nair\nCc: Oleg Sidorov",
        ("Marcus Webb", "Priya Nair", "Oleg Sidorov"),
    ),
    ("In article <93@example.edu> Walter Kimble writes:", ("Walter Kimble",)),
    ("On Tue, Joan Fairbanks wrote:\n> I agree.", ("Joan Fairbanks",)),
    ("Organization: Pinecrest Laboratories, Tucson", ("Pinecrest Laboratories", "Tucson")),
    ('Reply-To: "Nadia Haddad" <nadia@example.net>', ("Nadia Haddad",)),
)
_LISTS = (
    ("Present: Alan Moss, Brenda Kerr, Cyril Voss and Dora Lind.",
     ("Alan Moss", "Brenda Kerr", "Cyril Voss", "Dora Lind")),
    ("1. Francine Ortega\n2. Hugo Steiner\n3. Keiko Tanabe",
     ("Francine Ortega", "Hugo Steiner", "Keiko Tanabe")),
    ("- Baxter, Neil\n- Cho, Mina\n- Dufour, Luc", ("Baxter, Neil", "Cho, Mina", "Dufour, Luc")),
    ("Invited: Gina, Paul, Rashid, Svetlana and Tom.", ("Gina", "Paul", "Rashid", "Svetlana")),
    ("Quinlan, Baird and Okafor LLP; Baird & Sons; Okafor-Quinlan Group",
     ("Quinlan, Baird and Okafor LLP", "Baird & Sons", "Okafor-Quinlan Group")),
    ("name;city\nJulia Novak;Graz\nPablo Rivas;Lima",
     ("Julia Novak", "Graz", "Pablo Rivas", "Lima")),
)  # fmt: skip
_SCRIPTS = (
    ("Yesterday José Muñoz met Łukasz Wiśniewski.", ("José Muñoz", "Łukasz Wiśniewski")),
    ("The letter was signed by 李 and by 王芳.", ("李", "王芳")),
    ("Dr. Şükrü Güneş works in Ağrı.", ("Şükrü Güneş", "Ağrı")),
    ("Patient: Zoë Fjærvik, born in Tromsø", ("Zoë Fjærvik", "Tromsø")),
    ("Наталья Кузнецова called from Omsk.", ("Наталья Кузнецова", "Omsk")),
    ("Our guide was Ελένη Δημητρίου.", ("Ελένη Δημητρίου",)),
    ("Mr O’Shaughnessy and Ms D'Angelo left.", ("O’Shaughnessy", "D'Angelo")),
    ("Signed, Re\u0301gine Faure\u0301", ("Re\u0301gine Faure\u0301",)),
)
_BLANKS = (
    ("Dear Mr\u00a0Carmichael,\u00a0thank you.", ("Carmichael",)),
    ("Seen by Dr.\u00a0Anita\u00a0Desmond on 4\u00a0May\u00a02011.",
     ("Anita\u00a0Desmond", "4\u00a0May\u00a02011")),
    ("Regards,\r\n\r\nPhilippa Grange\r\nOakham\r\n", ("Philippa Grange", "Oakham")),
    ("Name: Boris\u2009Lehmann\r\nPhone: 212-555-0187\r\n", ("Boris\u2009Lehmann", "212-555-0187")),
    ("From: Stella Quaid\r\nTo: Ivor Penn\r\n", ("Stella Quaid", "Ivor Penn")),
)  # fmt: skip
_ADDRESSES = (
    ("Deliver to:\nMaud Tiller\n27 Orchard Road\nFlat 3\nHexham\nNE46 1AA",
     ("Maud Tiller", "27 Orchard Road", "Hexham", "NE46 1AA")),
    ("Write to Lindenallee 14, 50968 Köln, Germany.", ("Lindenallee 14", "50968 Köln, Germany")),
    ("P.O. Box 412\nWindhoek\nNamibia 10005", ("P.O. Box 412", "Windhoek", "Namibia 10005")),
    ("She moved to 8 Rue des Lilas, Lyon.", ("8 Rue des Lilas", "Lyon")),
)  # fmt: skip

SHAPES = {
    "upper case": _UPPER,
    "lower case": _LOWER,
    "signatures": _SIGNATURES,
    "header lines": _HEADERS,
    "lists": _LISTS,
    "other letters": _SCRIPTS,
    "odd blanks and line ends": _BLANKS,
    "addresses": _ADDRESSES,
}
SENTENCES = tuple(Sentence(shape, *pair) for shape, pairs in SHAPES.items() for pair in pairs)


def left_by(scrubber: Scrubber) -> Iterator[tuple[Sentence, str]]:
    """Every name of `SENTENCES` of which the scrubber leaves a character that is no blank."""
    for sentence in SENTENCES:
        covered = {
            i for d in scrubber.scrub(sentence.text).decisions for i in range(d.start, d.end)
        }
        for name in sentence.names:
            start = sentence.text.index(name)
            places = range(start, start + len(name))
            if any(i not in covered and not sentence.text[i].isspace() for i in places):
                yield sentence, name
