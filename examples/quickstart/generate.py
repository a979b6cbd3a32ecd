"""Writes synthetic clinic notes: no real person is in them.

    data/notes.jsonl    the private corpus: several notes for each of 1,200 invented patients, with
                        names, phones, e-mails, record numbers and dates, and some near-duplicates
    data/gold.jsonl     where the identifiers of 400 notes stand, known from their making
    data/public.jsonl   text of the same kind from another seed, about invented people of its own:
                        declared public, used for the vocabulary and the control

Run it again and the same files come out.
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
PATIENTS, NOTES_EACH, PUBLIC_NOTES = 1200, (2, 4), 2400

ONSETS = "b br c ch d dr f g gr h j k kl l m n p r s st t th v w z".split()
VOWELS = "a e i o u ai ea io ou ei".split()
CODAS = "n r l s th nd rt m ck ll ss d".split()
FIRST = (
    "Amara Bodil Cosima Dagny Eamon Farouk Gisela Hamish Ingrid Jorunn Keziah Lorcan Maelle Nuria "
    "Oswin Priya Quentin Rosalind Sanjay Tamsin Ulrich Vashti Wilhelm Xenia Yusuf Zelda Anselm "
    "Beatrix Caspian Delphine Emeka Freya Gideon Hiroko Ismael Jacinta Kwame Leocadia Marius Noor"
).split()
TOWNS = "Aldermoor Brackwater Coldharbour Dunmere Eastwick Fernhollow Glenbrook Harrowgate".split()
STREETS = "Orchard Mill Chapel Station Meadow Harbour Quarry Linden Priory Foundry".split()
WARDS = "cardiology neurology oncology orthopaedics dermatology paediatrics urology".split()
COMPLAINTS = (
    "chest pain|shortness of breath|a persistent dry cough|lower back pain|recurrent migraine|"
    "swelling of both ankles|numbness in the left hand|difficulty sleeping|loss of appetite|"
    "blurred vision|a rash on the forearms|dizziness on standing|abdominal cramps|joint stiffness|"
    "palpitations|a sore throat|night sweats|heartburn after meals|ringing in the ears|fatigue"
).split("|")
FINDINGS = (
    "The abdomen is soft and not tender|Breath sounds are clear on both sides|"
    "Blood pressure is mildly raised|The heart rhythm is regular without murmurs|"
    "Reflexes are brisk and symmetric|There is tenderness over the lumbar spine|"
    "The throat is red without exudate|Oxygen saturation is normal on room air|"
    "Pupils react equally to light|The skin shows scattered dry patches|"
    "Gait is steady and coordination intact|Mild oedema is present around the ankles|"
    "The thyroid is not enlarged|Grip strength is reduced on the left|Temperature is normal"
).split("|")
DRUGS = (
    "metoprolol amoxicillin ibuprofen omeprazole metformin lisinopril sertraline prednisolone "
    "salbutamol atorvastatin gabapentin furosemide paracetamol warfarin levothyroxine cetirizine"
).split()
TESTS = (
    "a full blood count|an electrocardiogram|a chest radiograph|liver function tests|"
    "an abdominal ultrasound|a fasting glucose level|a urine culture|thyroid function tests|"
    "magnetic resonance imaging of the spine|a skin biopsy|spirometry|an echocardiogram"
).split("|")
ADVICE = (
    "rest and drink plenty of water|avoid heavy lifting for two weeks|reduce salt in the diet|"
    "return at once if the pain worsens|keep a diary of the symptoms|stop smoking|"
    "walk for half an hour every day|finish the whole course of tablets|"
    "sleep with the head raised|check the blood pressure every morning"
).split("|")
DOSES = ["5 mg", "10 mg", "20 mg", "25 mg", "50 mg", "100 mg", "250 mg", "500 mg"]
OFTEN = ["once daily", "twice daily", "three times a day", "at night", "with food", "as needed"]
MONTHS = "January February March April May June July August September October".split()


class Person:
    """An invented patient with identifiers that repeat in every note."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.key = f"patient-{number:05d}"
        self.first = rng.choice(FIRST)
        self.last = surname(rng)
        self.phone = f"({rng.randint(201, 989)}) {rng.randint(201, 989)}-{rng.randint(0, 9999):04d}"
        self.email = f"{self.first}.{self.last}@{rng.choice(TOWNS)}-mail.com".lower()
        self.ssn = f"{rng.randint(1, 665):03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"
        self.address = f"{rng.randint(2, 240)} {rng.choice(STREETS)} Street, {rng.choice(TOWNS)}"
        self.doctor = f"{rng.choice(FIRST)} {surname(rng)}"


def surname(rng: random.Random) -> str:
    """A pronounceable name that no list holds."""
    syllables = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 2))]
    return ("".join(syllables) + rng.choice(CODAS)).capitalize()


class Note:
    """Text under construction that remembers where identifiers stand."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[dict[str, object]] = []

    def add(self, template: str, **values: tuple[str, str]) -> None:
        """Append a sentence; `{name}` is replaced by the (text, type) of that name."""
        rest = template
        while rest:
            before, brace, after = rest.partition("{")
            self.text += before
            if not brace:
                break
            name, _, rest = after.partition("}")
            value, kind = values[name]
            if kind:
                start = len(self.text)
                identifier = "QUASI" if kind == "DATE_TIME" else "DIRECT"
                self.spans.append(
                    {
                        "start": start,
                        "end": start + len(value),
                        "type": kind,
                        "identifier": identifier,
                    }
                )
            self.text += value
        self.text += " "


OPENINGS = [
    "Seen today in {ward}: {full}, who came in with {complaint} since {date}.",
    "{full} was admitted to {ward} on {date} because of {complaint}.",
    "Follow-up in {ward} for {full}. The main problem remains {complaint}, first noted {date}.",
    "Thank you for referring {full}, who reports {complaint} that began on {date}.",
    "On {date} we reviewed {full} in the {ward} clinic for {complaint}.",
]
CONTACTS = [
    "Results go to {email} or by telephone to {phone}.",
    "The patient lives at {address} and can be reached on {phone}.",
    "Insurance is registered under {ssn}; letters go to {address}.",
    "Please write to {email}; the number on file is {phone}.",
]
PLANS = [
    "We started {drug} {dose} {often} and asked for {test}.",
    "{drug} was changed to {dose} {often}. We await {test}.",
    "Treatment continues with {drug} {dose} {often}; {test} was arranged.",
    "After {test} we will decide whether {drug} {dose} {often} is still needed.",
]


def write_note(rng: random.Random, person: Person) -> Note:
    """One note about one person."""

    def plain(value: str) -> tuple[str, str]:
        return value, ""

    note = Note()
    date = f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2016, 2024)}"
    note.add(
        rng.choice(OPENINGS),
        full=(f"{person.first} {person.last}", "PERSON"),
        ward=plain(rng.choice(WARDS)),
        complaint=plain(rng.choice(COMPLAINTS)),
        date=(date, "DATE_TIME"),
    )
    for finding in rng.sample(FINDINGS, rng.randint(2, 4)):
        note.add(finding + ".")
    note.add(
        rng.choice(PLANS),
        drug=plain(rng.choice(DRUGS)),
        dose=plain(rng.choice(DOSES)),
        often=plain(rng.choice(OFTEN)),
        test=plain(rng.choice(TESTS)),
    )
    if rng.random() < 0.7:
        note.add(
            rng.choice(CONTACTS),
            email=(person.email, "EMAIL_ADDRESS"),
            phone=(person.phone, "PHONE_NUMBER"),
            address=(person.address, "ADDRESS"),
            ssn=(person.ssn, "US_SSN"),
        )
    note.add(f"Advised to {rng.choice(ADVICE)} and to {rng.choice(ADVICE)}.")
    note.add("Signed, Dr. {doctor}.", doctor=(person.doctor, "PERSON"))
    note.text = note.text.rstrip()
    return note


def corpus(seed: int, patients: int) -> list[tuple[Person, Note]]:
    """All notes of a set of patients; one in twenty is filed twice with a late addition."""
    rng = random.Random(seed)
    notes = []
    for number in range(patients):
        person = Person(rng, number)
        for _ in range(rng.randint(*NOTES_EACH)):
            note = write_note(rng, person)
            notes.append((person, note))
            if rng.random() < 0.05:
                copy = Note()
                copy.text, copy.spans = note.text + " Copy for the file.", note.spans
                notes.append((person, copy))
    return notes


def write(name: str, rows: list[dict[str, object]]) -> None:
    """A JSON-lines file in data/."""
    path = HERE / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"wrote {path.relative_to(HERE)}: {len(rows)} rows")


def main() -> None:
    """Write the three files."""
    notes = corpus(seed=20, patients=PATIENTS)
    write(
        "notes.jsonl",
        [
            {"id": f"note-{i:05d}", "patient": person.key, "text": note.text}
            for i, (person, note) in enumerate(notes)
        ],
    )
    write(
        "gold.jsonl",
        [
            {"id": f"note-{i:05d}", "prefilled": False, "text": note.text, "spans": note.spans}
            for i, (_, note) in enumerate(notes[:400])
        ],
    )
    public = [note for _, note in corpus(seed=7001, patients=PUBLIC_NOTES // 3)]
    write("public.jsonl", [{"id": f"public-{i:05d}", "text": n.text} for i, n in enumerate(public)])


if __name__ == "__main__":
    main()
