"""More variety from the same annotations: other names, other case, other line breaks.

A model trained on the sets as they are learns their names by heart. Each time an example is
drawn, half of its entities are replaced by others of the same kind, and some examples change
case or are wrapped into lines, as forum posts and forms are. The templates are sentences of our
own with slots, for kinds of text that none of the sets has: notes, letters, signatures, forms.
"""

import random
import re
from collections.abc import Mapping, Sequence

from dpmlm.scrub.examples import Example, Span

_SUBSTITUTED = ("PERSON", "LOCATION", "ORGANIZATION", "ADDRESS")

_SLOT = re.compile(r"\{(\w+)\}")
_SLOT_LABELS = {
    "person": "PERSON",
    "last_first": "PERSON",
    "first": "PERSON",
    "doctor": "PERSON",
    "initials": "PERSON",
    "place": "LOCATION",
    "org": "ORGANIZATION",
    "hospital": "ORGANIZATION",
    "address": "ADDRESS",
    "date": "DATE_TIME",
    "time": "DATE_TIME",
    "id": "ID",
    "phone": "PHONE_NUMBER",
    "age": "NRP",
    "job": "NRP",
    "nation": "NRP",
}

TEMPLATES = (
    "Patient: {person}\nDOB: {date}\nMRN: {id}\nAddress: {address}\nPhone: {phone}",
    "NAME: {last_first}   SEX: F   BORN: {date}   RECORD NO. {id}",
    "{person}, {age}, was admitted to {hospital} on {date} with chest pain.",
    "{doctor} reviewed the results with {person} and her husband {first} on {date}.",
    "Seen today by {doctor}. Next appointment {date} at {time}.",
    "{first} denies fever or chills. Lives in {place} with his wife {first}.",
    "The patient, a {age} {nation} {job} from {place}, reports pain since {date}.",
    "I examined {person} on {date}; blood pressure 130/80, pulse 72, temperature 37.1.",
    "Referred by {doctor}, {hospital}, {address}. Tel. {phone}.",
    "Medication: aspirin 75 mg daily, metformin 500 mg twice daily. Allergies: penicillin.",
    "Please call {first} at {phone} before {time} on {date} about account {id}.",
    "Emergency contact is {person} (daughter), {phone}.",
    "Discharge summary for {person}, insurance number {id}, signed {doctor}.",
    "In article <{id}> {person} writes:\n>I think the old version was better.",
    "From: {person}\nOrganization: {org}, {place}\nDate: {date}",
    "--\n{person}                 {org}\n{address}\n{place}    {phone}",
    "{person} ({initials}) wrote on {date}:\n> does anyone know how to fix this driver?",
    "Thanks in advance,\n{first}",
    "Regards,\n\n{person}\n{job}, {org}",
    "Hi {first},\n\nthanks for your mail. {first} and I will be in {place} until {date}.",
    "Dear Mr {person},\n\nWe refer to your letter of {date}, our reference {id}.",
    "Dear {doctor},\nthank you for seeing {person}, born {date}, of {address}.",
    "The loan agreement of {date} between {org} and {person}, residing at {address}.",
    "Claim {id} was filed by {person} against {org} in {place} on {date}.",
    "The witness {person}, a {job}, told the court that {first} left at {time}.",
    "{person} and {person} met {person} of {org} in {place}.",
    "Customer {last_first}, customer number {id}, moved from {place} to {address}.",
    "Mother: {person}. Father: {person}. Born in {place}. Nationality: {nation}.",
    "{first} works as a {job} at {org} and was seen at {hospital} in {date}.",
    "Nurse {person} noted at {time} that {first} was sleeping.",
    "Attending: {doctor}    Unit no: {id}    Admitted: {date}    Discharged: {date}",
    "employee {id} {last_first} {org} {place}",
    "My name is {person}, I live at {address} and my passport number is {id}.",
    "{first} called from {phone}; she asked about the invoice {id} dated {date}.",
    "Follow-up: {person} ({age}) tolerated the procedure well and went home to {place}.",
    "Policyholder {person}, policy {id}, reported damage on {date} near {place}.",
    "The file system on the server was full, so the mail bounced. Windows needs 4 MB of memory.",
    "The knee is stable, no effusion. Continue ibuprofen as needed and return if worse.",
    "Does God exist? The Bible and the Koran say so, but reason does not settle it.",
)

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_JOBS = (
    "teacher",
    "retired nurse",
    "carpenter",
    "lawyer",
    "truck driver",
    "software engineer",
    "waitress",
    "farmer",
    "student",
    "bus driver",
    "pharmacist",
    "electrician",
    "accountant",
    "police officer",
    "cleaner",
    "journalist",
)
_NATIONS = (
    "Turkish",
    "German",
    "Polish",
    "French",
    "Italian",
    "Mexican",
    "Chinese",
    "Indian",
    "British",
    "Irish",
    "Kurdish",
    "Russian",
    "Brazilian",
    "Nigerian",
    "Spanish",
    "Dutch",
    "Jewish",
    "Muslim",
    "Catholic",
    "Hispanic",
    "Korean",
    "Somali",
)
_HOSPITALS = ("{} General Hospital", "St. {} Medical Center", "{} Clinic", "University of {}")


class Augmenter:
    """Draws changed copies of examples. Everything follows from the seed."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self._random = random.Random(seed)
        self._pools = _pools(examples)
        names = [n.split() for n in self._pools["PERSON"]]
        self._first = sorted({n[0] for n in names if len(n) == 2 and n[0][0].isupper()})
        self._last = sorted({n[-1] for n in names if len(n) == 2 and n[-1][0].isupper()})

    def epoch(self, examples: Sequence[Example], templates: int) -> list[Example]:
        """One pass: each example changed anew, and `templates` filled ones, in random order."""
        drawn = [self._change(e) for e in examples]
        drawn += [self._case(self._fill(self._random.choice(TEMPLATES))) for _ in range(templates)]
        self._random.shuffle(drawn)
        return drawn

    def _change(self, example: Example) -> Example:
        if example.source == "pii_synthetic" or self._random.random() < 0.4:
            example = self._substitute(example)
        return self._case(self._wrap(example))

    def _substitute(self, example: Example) -> Example:
        replacements: dict[str, str] = {}
        text, spans, last = "", [], 0
        for span in example.spans:
            old = new = example.text[span.start : span.end]
            if span.label in _SUBSTITUTED and self._random.random() < 0.5:
                new = replacements.setdefault(old, self._like(span.label, old))
            text += example.text[last : span.start]
            spans.append(Span(len(text), len(text) + len(new), span.label))
            text += new
            last = span.end
        return Example(text + example.text[last:], tuple(spans), example.source, example.group)

    def _like(self, label: str, old: str) -> str:
        """Another entity of the kind; a person keeps the number of words more often than not."""
        if label == "PERSON" and self._random.random() < 0.7:
            words = len(old.split())
            return self._name("first" if words == 1 else "person")
        return self._random.choice(self._pools[label])

    def _case(self, example: Example) -> Example:
        draw = self._random.random()
        changed = example.text
        if draw < 0.10:
            changed = example.text.lower()
        elif draw < 0.16:
            changed = example.text.upper()
        elif draw < 0.20:
            changed = example.text.title()
        if len(changed) != len(example.text):  # "ß".upper() is two letters: offsets move
            return example
        return Example(changed, example.spans, example.source, example.group)

    def _wrap(self, example: Example, width: int = 72) -> Example:
        if self._random.random() > 0.15:
            return example
        letters, column = list(example.text), 0
        for i, letter in enumerate(letters):
            column = 0 if letter == "\n" else column + 1
            if letter == " " and column > width - 10:
                letters[i], column = "\n", 0
        return Example("".join(letters), example.spans, example.source, example.group)

    def _fill(self, template: str) -> Example:
        text, spans, last = "", [], 0
        for match in _SLOT.finditer(template):
            text += template[last : match.start()]
            value = self._name(match[1])
            spans.append(Span(len(text), len(text) + len(value), _SLOT_LABELS[match[1]]))
            text += value
            last = match.end()
        return Example(text + template[last:], tuple(spans), "templates", template[:20])

    def _name(self, slot: str) -> str:
        pick = self._random.choice
        first, last = pick(self._first), pick(self._last)
        number = self._random.randrange
        match slot:
            case "first":
                return pick((first, first, last))
            case "person":
                middle = pick(("", "", "", f" {pick(self._first)[0]}.", f" {pick(self._first)}"))
                return f"{first}{middle} {last}"
            case "last_first":
                return f"{last}, {first}"
            case "doctor":
                return (
                    f"{pick(('Dr.', 'Dr', 'Prof.', 'Dr. med.'))} {pick((last, f'{first} {last}'))}"
                )
            case "initials":
                return f"{first[0]}.{last[0]}."
            case "place":
                return pick(self._pools["LOCATION"])
            case "org":
                return pick(self._pools["ORGANIZATION"])
            case "hospital":
                return pick(_HOSPITALS).format(last)
            case "address":
                street = f"{number(1, 9999)} {last} {pick(('Street', 'Road', 'Ave', 'Lane', 'Dr'))}"
                return pick((street, pick(self._pools["ADDRESS"])))
            case "date":
                return self._date()
            case "time":
                return f"{number(1, 12)}:{number(60):02d}" + pick(("", " a.m.", " pm", "pm"))
            case "phone":
                a, b, c = number(200, 999), number(200, 999), number(10000)
                return pick((f"({a}) {b}-{c:04d}", f"{a}-{b}-{c:04d}", f"+{a % 90} {b} {c:04d}"))
            case "id":
                letters = pick(("", "", "AB", "K", "MRN", "X-"))
                return letters + str(number(10 ** pick((4, 5, 7, 9)), 10**10))[: number(5, 11)]
            case "age":
                return f"{number(18, 95)}" + pick(
                    ("-year-old", " years old", " year old", "-yr-old")
                )
            case "job":
                return pick(_JOBS)
        return pick(_NATIONS)

    def _date(self) -> str:
        number, pick = self._random.randrange, self._random.choice
        day, month, year = number(1, 29), number(1, 13), number(1930, 2026)
        name = pick((_MONTHS[month - 1], _MONTHS[month - 1][:3]))
        return pick(
            (
                f"{month:02d}/{day:02d}/{year}",
                f"{month}/{day}/{year % 100:02d}",
                f"{year}-{month:02d}-{day:02d}",
                f"{day}.{month}.{year}",
                f"{day} {name} {year}",
                f"{name} {day}, {year}",
                f"{name} {day}",
                f"{name} {year}",
                f"{year}",
            )
        )


def _pools(examples: Sequence[Example]) -> Mapping[str, list[str]]:
    """Different entity texts of the training part, by label."""
    pools: dict[str, set[str]] = {label: set() for label in _SUBSTITUTED}
    for example in examples:
        for span in example.spans:
            value = example.text[span.start : span.end]
            if span.label in pools and len(value) > 2 and value[0] not in "@#":
                pools[span.label].add(value)
    return {label: sorted(values) for label, values in pools.items()}
