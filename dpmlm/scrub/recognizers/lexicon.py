"""Words of our own for made-up training sentences and for the demographics recognizer.

General knowledge, written with the kinds of words in view that the annotated sets mark.
"""

from collections.abc import Iterable, Mapping, Sequence

NATIONALITIES = tuple(
    """
Afghan Albanian Algerian American Andorran Angolan Argentinian Argentine Armenian Australian
Austrian Azerbaijani Bahraini Bangladeshi Belarusian Belgian Bolivian Bosnian Brazilian British
Bulgarian Burmese Cambodian Cameroonian Canadian Chadian Chilean Chinese Colombian Congolese
Croatian Cuban Cypriot Czech Danish Dominican Dutch Ecuadorian Egyptian English Eritrean Estonian
Ethiopian Filipino Finnish French Gambian Georgian German Ghanaian Greek Guatemalan Guinean Haitian
Honduran Hungarian Icelandic Indian Indonesian Iranian Iraqi Irish Israeli Italian Ivorian Jamaican
Japanese Jordanian Kazakh Kenyan Korean Kosovar Kuwaiti Kyrgyz Laotian Latvian Lebanese Liberian
Libyan Lithuanian Macedonian Malaysian Malian Maltese Mauritanian Mexican Moldovan Mongolian
Montenegrin Moroccan Nepalese Nicaraguan Nigerian Norwegian Omani Pakistani Palestinian Panamanian
Paraguayan Peruvian Polish Portuguese Romanian Russian Rwandan Salvadoran Saudi Scottish Senegalese
Serbian Singaporean Slovak Slovakian Slovenian Somali Spanish Sudanese Swedish Swiss Syrian Tajik
Taiwanese Tanzanian Thai Tunisian Turkish Turkmen Ugandan Ukrainian Uruguayan Uzbek Venezuelan
Vietnamese Welsh Yemeni Yugoslav Zambian Zimbabwean
""".split()
)
PEOPLES = tuple(
    """
Kurdish Basque Catalan Breton Roma Romani Sinti Tamil Tatar Chechen Uyghur Tibetan Maori Inuit
Aboriginal Berber Bedouin Druze Yazidi Alevi Sorbian Frisian Corsican Flemish Walloon Hispanic
Latino Latina Hutu Tutsi Zulu Yoruba Igbo Hausa Pashtun Punjabi Bengali Sikh Jewish Muslim
Christian Catholic Protestant Orthodox Buddhist Hindu Lutheran Methodist Baptist Mormon Quaker
Sunni Shia Shiite
""".split()
)
OCCUPATIONS = tuple(
    line.strip()
    for line in """
    accountant; actor; actress; advocate; ambulance driver; architect; army officer; artist;
    assistant professor; author; baker; ballet dancer; bank clerk; banker; barber; barrister;
    bricklayer; bus driver; businessman; businesswoman; butcher; caretaker; carpenter; cashier;
    chef; chemist; civil engineer; civil servant; cleaner; clerk; coal miner; computer programmer;
    conscript; construction worker; consultant; cook; dancer; data analyst; dentist; diplomat;
    economist; editor; electrician; engineer; farm worker; farmer; firefighter; fisherman;
    flight attendant; freelance journalist; gardener; graphic designer; hairdresser; historian;
    housewife; interpreter; journalist; judge; lawyer; lecturer; legal adviser; librarian;
    lorry driver; machine operator; mail carrier; mechanic; medical practitioner; midwife; miner;
    musician; notary; nurse; office manager; optician; painter; paramedic; pensioner; pharmacist;
    photographer; physician; physicist; physiotherapist; pilot; plumber; police officer; postman;
    priest; prison guard; prosecutor; psychiatrist; psychologist; publisher; receptionist;
    research assistant; retired nurse; retired officer; sailor; sales manager; schoolteacher;
    seamstress; secretary; security guard; shop assistant; shopkeeper; social worker;
    software developer; software engineer; soldier; solicitor; stockbroker; student; surgeon;
    surveyor; tailor; taxi driver; teacher; technician; trade unionist; translator; truck driver;
    university professor; veterinarian; waiter; waitress; web designer; welder; writer
    """.split(";")
)
CONDITIONS = tuple(
    line.strip()
    for line in """
    paranoid schizophrenia; schizophrenia; bipolar disorder; epilepsy; multiple sclerosis; HIV;
    hepatitis C; type 2 diabetes; breast cancer; lung cancer; leukaemia; Parkinson's disease;
    Alzheimer's disease; a personality disorder; post-traumatic stress disorder; depression;
    tuberculosis; asthma; a heart condition; alcoholism; drug addiction; dementia; autism
    """.split(";")
)
COMPANY_ENDS = tuple(
    """
Ltd|Ltd.|Limited|LLC|L.L.C.|Inc|Inc.|Incorporated|Corp|Corp.|Corporation|Group|PLC|plc|LLP|GmbH
AG|KG|S.A.|SpA|S.p.A.|S.r.l.|B.V.|BV|N.V.|NV|AB|AS|A.S.|Oy|Oyj|ApS|SARL|SAS|Sp. z o.o.|Kft.|s.r.o.
d.o.o.|Pty Ltd|Pte Ltd|Co.|Co|Company|and Sons|& Sons|& Co.|and Company|and Partners|& Partners
Brothers|Bros.|Holding|Holdings|Industries|Enterprises|Associates|Partners|Foundation|Trust
""".replace("\n", "|").strip("|").split("|")
)  # fmt: skip
COMPANY_TRADES = tuple(
    """
Consulting|Capital|Software|Systems|Technologies|Analytics|Data|Labs|Media|Logistics|Insurance
Bank|Airlines|Motors|Energy|Foods|Pharma|Health|Solutions|Services|Partners|Ventures|Networks|Design
Records|Books|Press|Hotels|Properties|Realty|Investments|Financial|Securities|Research|Robotics
Electric|Chemicals|Steel|Shipping|Construction|Studios|Entertainment|Security|Telecom|Mutual
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
COMPANY_WORDS = tuple(
    """
Blue Green Silver Golden Northern Southern Eastern Western Pacific Atlantic Alpine Central National
Global United First American Royal Summit Harbor River Lake Oak Cedar Maple Stone Iron Bright Open
Smart Rapid Prime Nova Delta Omega Apex Vertex Quantum Fusion Zenith Orion Phoenix Falcon Eagle Lion
Sun Star Moon Cloud Data Info Cyber Bio Geo Agro Medi Eco Auto Aero Trans Inter Micro Macro Net Web
""".split()
)
PUBLIC_BODIES = (
    "{} Regional Court",
    "{} District Court",
    "{} Court of Appeal",
    "{} Administrative Court",
    "{} Labour Court",
    "{} Court of First Instance",
    "{} Assize Court",
    "{} Public Prosecutor's Office",
    "{} City Council",
    "{} Police Department",
    "{} Police Authority",
    "{} Tax Office",
    "{} Housing Authority",
    "{} School District",
    "{} Chamber of Commerce",
    "{} Bar Association",
    "{} Medical Association",
    "{} Human Rights Association",
    "{} Prison",
    "{} Remand Centre",
    "University of {}",
    "{} University",
    "{} Technical College",
    "{} High School",
    "{} Public Library",
    "Bank of {}",
    "{} Savings Bank",
    "{} Football Club",
    "Municipality of {}",
    "Mayor of {}",
    "Ministry of Transport",
    "Ministry of the Interior",
    "Department of Labor",
    "Supreme Court",
    "Court of Cassation",
    "Constitutional Court",
    "Social Insurance Board",
    "National Health Service",
    "State Railways",
    "Workers' Party",
    "Green Party",
    "Bar Council",
)
HOSPITALS = (
    "{} General Hospital",
    "St. {} Medical Center",
    "{} Clinic",
    "{} Memorial Hospital",
    "{} University Hospital",
    "{} Psychiatric Hospital",
    "Sisters of {} Hospice",
)
FOREIGN_NAMES = tuple(
    line.strip()
    for line in """
    José García; María Núñez; Łukasz Wójcik; Małgorzata Dąbrowska; Jürgen Groß; Zoë Müller;
    Søren Østergaard; Åsa Lindström; Ólafur Þórðarson; Şebnem Yılmaz; Çağla Öztürk; İbrahim Güneş;
    Dvořák Jiří; Zdeněk Kříž; Ștefan Țurcanu; Đorđe Đukić; Žaneta Čermáková; Nguyễn Văn Hùng;
    Trần Thị Mai; François Lefèvre; Noël Bézier; João Gonçalves; Conceição Araújo; Märta Åkesson;
    Анна Иванова; Дмитрий Соколов; Олена Шевченко; Γιώργος Παππάς; Σοφία Νικολάου; 王伟; 李娜; 张丽;
    陈静; 佐藤健; 鈴木花子; 김민준; 박서연; محمد علي; فاطمة حسن; דוד כהן; प्रिया शर्मा; राहुल वर्मा;
    สมชาย ใจดี; Siobhán Ó Briain; Niamh Ní Dhómhnaill; Bjørn Ødegård; Lech Żuławski; Inés Ibáñez
    """.split(";")
)
FOREIGN_PLACES = tuple(
    line.strip()
    for line in """
    Łódź; Kraków; Gdańsk; Zürich; Düsseldorf; Köln; Göteborg; Malmö; Tromsø; Århus; İzmir;
    Diyarbakır; Şanlıurfa; Plzeň; České Budějovice; Košice; Győr; Timișoara; Niš; Čačak; Évreux;
    Besançon; Orléans; A Coruña; Cádiz; São Luís; Belém; Москва; Αθήνα; Θεσσαλονίκη; 北京;
    東京; 서울; القاهرة; חיפה; मुंबई; Hà Nội; Đà Nẵng
    """.split(";")
)
COUNTRIES = tuple(
    line.strip()
    for line in """
    Afghanistan; Albania; Algeria; Andorra; Angola; Argentina; Armenia; Australia; Austria;
    Azerbaijan; Bahamas; Bahrain; Bangladesh; Barbados; Belarus; Belgium; Belize; Benin; Bhutan;
    Bolivia; Bosnia and Herzegovina; Botswana; Brazil; Brunei; Bulgaria; Burkina Faso; Burundi;
    Cambodia; Cameroon; Canada; Cape Verde; Central African Republic; Chad; Chile; China; Colombia;
    Comoros; Congo; Costa Rica; Croatia; Cuba; Cyprus; Czech Republic; Czechia; Denmark; Djibouti;
    Dominica; Dominican Republic; East Timor; Ecuador; Egypt; El Salvador; England; Equatorial
    Guinea; Eritrea; Estonia; Eswatini; Ethiopia; Fiji; Finland; France; Gabon; Gambia; Georgia;
    Germany; Ghana; Great Britain; Greece; Greenland; Grenada; Guatemala; Guinea; Guinea-Bissau;
    Guyana; Haiti; Honduras; Hong Kong; Hungary; Iceland; India; Indonesia; Iran; Iraq; Ireland;
    Israel; Italy; Ivory Coast; Jamaica; Japan; Jordan; Kazakhstan; Kenya; Kiribati; Kosovo; Kuwait;
    Kyrgyzstan; Laos; Latvia; Lebanon; Lesotho; Liberia; Libya; Liechtenstein; Lithuania;
    Luxembourg; Macedonia; Madagascar; Malawi; Malaysia; Maldives; Mali; Malta; Marshall Islands;
    Mauritania; Mauritius; Mexico; Micronesia; Moldova; Monaco; Mongolia; Montenegro; Morocco;
    Mozambique; Myanmar; Namibia; Nauru; Nepal; Netherlands; New Zealand; Nicaragua; Niger; Nigeria;
    North Korea; Northern Ireland; Norway; Oman; Pakistan; Palau; Palestine; Panama; Papua New
    Guinea; Paraguay; Peru; Philippines; Poland; Portugal; Qatar; Romania; Russia; Rwanda; Saint
    Kitts and Nevis; Saint Lucia; Samoa; San Marino; Saudi Arabia; Scotland; Senegal; Serbia;
    Seychelles; Sierra Leone; Singapore; Slovakia; Slovenia; Solomon Islands; Somalia; South Africa;
    South Korea; South Sudan; Spain; Sri Lanka; Sudan; Suriname; Swaziland; Sweden; Switzerland;
    Syria; Taiwan; Tajikistan; Tanzania; Thailand; Togo; Trinidad and Tobago; Tunisia; Turkey;
    Turkmenistan; Tuvalu; Uganda; Ukraine; United Arab Emirates; United Kingdom; United States;
    Uruguay; Uzbekistan; Vanuatu; Vatican City; Venezuela; Vietnam; Wales; Yemen; Zambia; Zimbabwe
    """.split(";")
)
"""Short names; a line end inside a name stands for a blank."""

Phrases = Mapping[str, Sequence[tuple[str, ...]]]
"""Phrases as lower-case words, by their first word, longest first."""


def phrases(values: Iterable[str]) -> Phrases:
    """Phrases as the tokenizer cuts them, without an article before them."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for value in values:
        words = tuple(value.lower().replace("'s", " 's").replace("-", " - ").split())
        words = words[1:] if words[0] == "a" else words
        found.setdefault(words[0], []).append(words)
    return {first: sorted(of, key=lambda w: (-len(w), w)) for first, of in found.items()}


def length_at(known: Phrases, words: Sequence[str], at: int) -> int:
    """Words of the longest phrase that begins at `at`; 0 if none does."""
    for phrase in known.get(words[at], ()):
        if tuple(words[at : at + len(phrase)]) == phrase:
            return len(phrase)
    return 0
