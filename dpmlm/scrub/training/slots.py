"""Values for the slots of `templates`: names, companies, addresses, dates, numbers.

Names and places are those of the training part and ones put together from two of them
("Kowalski" and "Hughes" make "Kowalghes"): a model that has only seen real names learns them by
heart, and misses the next one. Everything follows from one random generator.
"""

import random
import unicodedata
from collections.abc import Mapping, Sequence

from dpmlm.scrub.recognizers import lexicon

LABELS_OF_SLOTS = {
    "person": "PERSON",
    "last_first": "PERSON",
    "first": "PERSON",
    "last": "PERSON",
    "doctor": "PERSON",
    "titled": "PERSON",
    "initials": "PERSON",
    "initials_last": "PERSON",
    "place": "LOCATION",
    "org": "ORGANIZATION",
    "court": "ORGANIZATION",
    "hospital": "ORGANIZATION",
    "address": "ADDRESS",
    "address_lines": "ADDRESS",
    "street": "ADDRESS",
    "postcode": "ADDRESS",
    "date": "DATE_TIME",
    "time": "DATE_TIME",
    "year": "DATE_TIME",
    "weekday": "DATE_TIME",
    "id": "ID",
    "case": "ID",
    "phone": "PHONE_NUMBER",
    "age": "NRP",
    "job": "NRP",
    "nation": "NRP",
    "people": "NRP",
    "condition": "NRP",
    "money": "QUANTITY",
    "percent": "QUANTITY",
    "office": "",
    "number": "",
    "email": "",
}
"""What each slot is taught as; "" leaves it out of the loss."""

_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mon Tue Wed Thu Fri Sat Sun"
_STREETS = (
    "Street Road Avenue Ave Lane Drive Dr St Rd Boulevard Blvd Court Square Way Close Terrace"
)
_STREET_ENDS = "straße strasse gasse weg platz vej gatan gata veien laan straat plein kuja utca"
_STREET_BEGINS = "Calle|Avenida|Rue de|Rue du|Via|Viale|Rua|Ulica|ul.|Plaza|Trg|Piazza|Place de"
_SECOND_LINES = "Suite {}|Apt. {}|Apt {}|Unit {}|Flat {}|Floor {}|# {}|Room {}|Building {}"
_CURRENCIES = "euros|US dollars|pounds sterling|Turkish liras (TRL)|Polish zlotys (PLN)|francs"
_OFFICES = (
    "President Senator Minister Chancellor Governor Coach Captain Bishop Sister Brother Uncle Aunt "
    "Officer Detective Sergeant Manager Director Producer Singer Author Chairman Councillor King"
)
_TITLES = frozenset("mr mrs ms miss dr prof".split())
_VOWELS = frozenset("aeiouyäöüéèêáàóíúåøæı")


class Slots:
    """Draws values. `pools` are the entity texts of the training part by label."""

    def __init__(self, pools: Mapping[str, Sequence[str]], generator: random.Random) -> None:
        self._random = generator
        self._pools = pools
        names = [n.split() for n in pools["PERSON"]]
        pairs = [n for n in names if len(n) == 2 and all(w[0].isupper() for w in n)]
        self._givens = sorted({n[0] for n in pairs})
        self._surnames = sorted({n[1] for n in pairs})

    def draw(self, slot: str) -> str:
        """A value; one in thirty has its accents as characters of their own."""
        value: str = getattr(self, f"_{slot}")()
        return unicodedata.normalize("NFD", value) if self._random.random() < 1 / 30 else value

    def like(self, label: str, old: str) -> str:
        """Another entity of the kind; a person keeps the number of words more often than not."""
        draw = self._random.random()
        if label == "PERSON" and draw < 0.8:
            title, _, rest = old.partition(" ")
            if title.strip(".").lower() in _TITLES:
                return f"{title} {self._one_name() if ' ' not in rest else self._person()}"
            return self._person() if rest else self._one_name()
        if label == "ORGANIZATION" and draw < 0.5:
            return self._org()
        if label == "LOCATION" and draw < 0.5:
            return self._place()
        if label == "ADDRESS" and draw < 0.4:
            return self._address_lines() if "\n" in old else self._address()
        return self._pick(self._pools[label])

    def _pick(self, values: Sequence[str]) -> str:
        return self._random.choice(values)

    def _between(self, low: int, high: int) -> int:
        return self._random.randrange(low, high)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _invented(self, words: Sequence[str]) -> str:
        """The beginning of one word and the end of another, joined where a vowel ends."""
        a, b = self._pick(words), self._pick(words)
        cut = next((i for i in range(2, len(a)) if a[i].lower() in _VOWELS), len(a) - 1)
        rest = next((i for i in range(2, len(b)) if b[i].lower() in _VOWELS), len(b) - 1)
        made = a[:cut] + b[rest:].lower()
        return made if len(made) > 2 else a

    def _first(self) -> str:
        if self._chance(0.06):
            return self._pick(self._pick(lexicon.FOREIGN_NAMES).split())
        return self._invented(self._givens) if self._chance(0.25) else self._pick(self._givens)

    def _last(self) -> str:
        if self._chance(0.06):
            return self._pick(lexicon.FOREIGN_NAMES).split()[-1]
        name = self._invented(self._surnames) if self._chance(0.35) else self._pick(self._surnames)
        if self._chance(0.08):
            name = f"{name}-{self._pick(self._surnames)}"
        elif self._chance(0.04):
            name = f"{self._pick(('van', 'de', 'von', 'di', 'van der', 'al'))} {name}"
        return name

    def _one_name(self) -> str:
        return self._last() if self._chance(0.35) else self._first()

    def _person(self) -> str:
        if self._chance(0.06):
            return self._pick(lexicon.FOREIGN_NAMES)
        first, last = self._first(), self._last()
        middle = self._pick(("", "", "", "", f" {self._first()[0]}.", f" {self._first()}"))
        return f"{first}{middle} {last}"

    def _last_first(self) -> str:
        return f"{self._last()}, {self._first()}" + self._pick(("", "", f" {self._first()[0]}."))

    def _doctor(self) -> str:
        title = self._pick(("Dr.", "Dr", "Prof.", "Dr. med.", "Doctor", "Professor"))
        return f"{title} {self._pick((self._last(), self._person()))}"

    def _titled(self) -> str:
        title = self._pick(("Mr", "Mrs", "Ms", "Miss", "Mr.", "Mrs.", "Ms."))
        return f"{title} {self._pick((self._last(), self._person()))}"

    def _office(self) -> str:
        return self._pick(_OFFICES.split())

    def _initials(self) -> str:
        return f"{self._first()[0]}.{self._last()[0]}."

    def _initials_last(self) -> str:
        first, last = self._first()[0], self._last()
        return self._pick((f"{first}. {last}", f"{last} {first}.", f"{last}, {first}."))

    def _place(self) -> str:
        if self._chance(0.06):
            return self._pick(lexicon.FOREIGN_PLACES)
        name = self._pick(self._pools["LOCATION"])
        if self._chance(0.25):
            words = [w for w in name.split() if len(w) > 3 and w[0].isupper()]
            other = self._pick(self._pools["LOCATION"]).split()[0]
            if words and len(other) > 3:
                made = self._invented((words[0], other)).capitalize()
                name = self._pick((made, made, f"{self._pick(('San', 'Bad', 'New'))} {made}"))
        return name.upper() if self._chance(0.05) else name

    def _org(self) -> str:
        draw = self._random.random()
        if draw < 0.30:
            return self._pick(self._pools["ORGANIZATION"])
        if draw < 0.60:
            return self._family_firm()
        if draw < 0.70:
            return self._court()
        if draw < 0.75:
            return self._hospital()
        return self._brand()

    def _family_firm(self) -> str:
        """Companies named after their owners."""
        a, b, c = self._last(), self._last(), self._last()
        end = self._pick(lexicon.COMPANY_ENDS)
        trade = self._pick(lexicon.COMPANY_TRADES)
        return self._pick(
            (
                f"{a} {end}",
                f"{a} {end}",
                f"{a}, {end}" if end[0].isupper() else f"{a} {end}",
                f"{a}-{b}",
                f"{a}, {b} and {c}",
                f"{a}, {b} & {c}",
                f"{a} and {b}",
                f"{a} & {b}",
                f"{a} {trade}",
                f"{a} {trade} {end}",
                f"{a} & {b} {end}",
                f"{self._first()} {a} {end}",
            )
        )

    def _brand(self) -> str:
        """Made-up brands, descriptive names and capitals."""
        word, other = self._pick(lexicon.COMPANY_WORDS), self._pick(lexicon.COMPANY_WORDS)
        trade, end = self._pick(lexicon.COMPANY_TRADES), self._pick(lexicon.COMPANY_ENDS)
        made = self._invented(self._surnames + self._givens)
        letters = "".join(self._pick("ABCDEFGHIKLMNOPRSTUVW") for _ in range(self._between(2, 6)))
        return self._pick(
            (
                f"{word} {other} {trade}",
                f"{word} {trade}",
                f"{word} {trade} {end}",
                f"{word}{other.lower()}",
                f"{word}{other}",
                f"{word}{made.lower()}",
                f"{made} {trade}",
                f"{made} {end}",
                made + self._pick(("ly", "ify", "io", "ia", "ex", "on", "soft", "tech", "com")),
                made,
                letters,
                f"{letters} {trade}",
                f"{word.lower()}{made.lower()}",
                f"{self._place()} {trade}",
                f"American {trade} {self._pick(('Association', 'Institute', 'Society'))}",
            )
        )

    def _court(self) -> str:
        return self._pick(lexicon.PUBLIC_BODIES).format(self._place())

    def _hospital(self) -> str:
        return self._pick(lexicon.HOSPITALS).format(self._last())

    def _street(self) -> str:
        name, number = self._last(), self._between(1, 400)
        return self._pick(
            (
                f"{name} {self._pick(_STREETS.split())}",
                f"{number} {name} {self._pick(_STREETS.split())}",
                f"{number} {self._first()} {name} {self._pick(_STREETS.split())}",
                f"{name}{self._pick(_STREET_ENDS.split())} {number}",
                f"{self._first()}-{name}-Straße {number}",
                f"{self._pick(_STREET_BEGINS.split('|'))} {self._person()} {number}",
                f"{self._pick(_STREET_BEGINS.split('|'))} {self._place()}, {number}",
                f"{self._place()} {number}",
                f"P.O. Box {number}",
                f"the corner of {name} {self._pick(_STREETS.split())} and {self._last()} Street",
            )
        )

    def _postcode(self) -> str:
        letters = "".join(self._pick("ABCDEGHKLMNPRSTW") for _ in range(4))
        n = self._between
        return self._pick(
            (
                f"{n(0, 100000):05d}",
                f"{n(0, 100000):05d}",
                f"{n(10000, 99999)}-{n(0, 10000):04d}",
                f"{n(1000, 9999)}",
                f"{n(100, 999)} {n(10, 99)}",
                f"{letters[:2]}{n(1, 20)} {n(1, 9)}{letters[2:]}",
                f"{letters[0]}-{n(1000, 99999)}",
            )
        )

    def _address_parts(self) -> list[str]:
        """Street, second line, town, country or state: each as often there as not."""
        number = self._between(1, 1000)
        if self._chance(0.05):
            unit = self._pick(("Unit", "PSC", "CMR"))
            post = f"{self._pick(('APO', 'FPO', 'DPO'))} A{self._pick('AEP')}"
            box = f"{unit} {number}{self._pick((',', ''))} Box {self._between(1, 9999)}"
            return [box, f"{post} {self._between(10000, 99999)}"]
        second = self._pick(_SECOND_LINES.split("|")).format(number)
        state = "".join(self._pick("ACDIKLMNORTV") for _ in range(2))
        town = self._place()
        parts = [self._pick((self._street(), f"{self._between(1, 99)} {self._street()}"))]
        parts += [second] if self._chance(0.4) else []
        parts += [
            self._pick(
                (
                    town,
                    f"{town}, {state} {self._postcode()}",
                    f"{town} {self._postcode()}",
                    f"{self._postcode()} {town}",
                )
            )
        ]
        end = self._pick(("", "", self._place(), f"{self._place()} {self._postcode()}"))
        return [*parts, end] if end else parts

    def _address(self) -> str:
        if self._chance(0.2):
            return self._pick(self._pools["ADDRESS"])
        if self._chance(0.3):
            return self._street()
        return self._pick((", ", ", ", " ")).join(self._address_parts())

    def _address_lines(self) -> str:
        return self._pick(("\n", "\n", "\n ", ",\n", "\n\n")).join(self._address_parts())

    def _time(self) -> str:
        return f"{self._between(1, 24)}:{self._between(0, 60):02d}" + self._pick(
            ("", " a.m.", " pm", "pm")
        )

    def _year(self) -> str:
        return str(self._between(1930, 2030))

    def _weekday(self) -> str:
        return self._pick((*_DAYS.split(), "tomorrow", "next week"))

    def _phone(self) -> str:
        a, b, c = self._between(200, 999), self._between(200, 999), self._between(0, 10000)
        return self._pick(
            (
                f"({a}) {b}-{c:04d}",
                f"{a}-{b}-{c:04d}",
                f"+{a % 90} {b} {c:04d}",
                f"0{a} {b} {c:04d}",
                f"{a}.{b}.{c:04d}x{a % 100}",
                f"+{a % 90}-{a}-{b}-{c:04d}",
            )
        )

    def _id(self) -> str:
        letters = self._pick(("", "", "AB", "K", "MRN", "X-"))
        digits = str(self._between(10 ** self._between(4, 10), 10**10))
        return letters + digits[: self._between(5, 11)]

    def _case(self) -> str:
        a, b, year = self._between(1, 99999), self._between(1, 999), self._between(80, 99)
        letters = "".join(self._pick("ABCDKLOSUVZ") for _ in range(self._between(1, 4)))
        return self._pick(
            (
                f"{a}/{year}",
                f"{a}/{year % 20:02d}",
                f"{letters} {b}/{year}",
                f"{b} {letters.capitalize()} {a % 1000}/{year}",
                f"{letters}-{a}",
                f"{1900 + year}:{b}",
                f"{1900 + year}/{b}",
                f"{b}/{a % 10}",
                f"{letters}{a}",
                str(a),
            )
        )

    def _age(self) -> str:
        years = self._between(18, 99)
        return self._pick(
            (
                f"{years}-year-old",
                f"{years} years old",
                f"{years} year old",
                f"{years}-yr-old",
                f"aged {years}",
            )
        )

    def _job(self) -> str:
        return self._pick(lexicon.OCCUPATIONS)

    def _nation(self) -> str:
        return self._pick(lexicon.NATIONALITIES)

    def _people(self) -> str:
        return self._pick(lexicon.PEOPLES)

    def _condition(self) -> str:
        return self._pick(lexicon.CONDITIONS)

    def _money(self) -> str:
        amount = f"{self._between(1, 10 ** self._between(2, 7)):,}"
        currency = self._pick(_CURRENCIES.split("|"))
        return self._pick(
            (
                f"EUR {amount}",
                f"{amount} {currency}",
                f"${amount}",
                f"{amount} EUR",
                f"£{amount}.50",
            )
        )

    def _number(self) -> str:
        return str(self._between(2, 60))

    def _percent(self) -> str:
        return f"{self._between(1, 100)}" + self._pick(("%", " %", " per cent", ".5%"))

    def _email(self) -> str:
        name = self._pick((self._first(), f"{self._first()}.{self._last()}")).lower()
        return f"{name.replace(' ', '')}@{self._pick(lexicon.COMPANY_WORDS).lower()}.example.com"

    def _date(self) -> str:
        day, month, year = self._between(1, 29), self._between(1, 13), self._between(1930, 2026)
        full = _MONTHS.split()[month - 1]
        name = self._pick((full, full[:3]))
        return self._pick(
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
