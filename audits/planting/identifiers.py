"""Structured secrets: what a phone number, a payment card or an e-mail address may be.

Each kind is drawn uniformly from a space of at least 2^30, by a generator that a scorer can ask
for others of the same kind. Numbers are well formed, so that a scrubber that knows the form can
find them. They are drawn blindly: one may by chance be somebody's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from audits.planting.secret_random import SecretRandom

# Geographic codes of the North American Numbering Plan; a number under any other is malformed.
_AREAS = (
    "201 202 203 205 206 207 208 209 210 212 213 214 215 216 217 218 219 220 223 224 225 228 229 "
    "231 234 239 240 248 251 252 253 254 256 260 262 267 269 270 276 281 301 302 303 304 305 307 "
    "308 309 310 312 313 314 315 316 317 318 319 320 321 323 325 330 331 334 336 337 339 347 351 "
    "352 360 361 386 401 402 404 405 406 407 408 409 410 412 413 414 415 417 419 423 424 425 430 "
    "432 434 435 440 443 458 469 470 478 479 480 484 501 502 503 504 505 507 508 509 510 512 513 "
    "515 516 517 518 520 530 540 541 551 559 561 562 563 567 570 571 573 574 575 580 585 586 601 "
    "602 603 605 606 607 608 609 610 612 614 615 616 617 618 619 620 623 626 630 631 636 641 646 "
    "650 651 660 661 662 678 701 702 703 704 706 707 708 712 713 714 715 716 717 718 719 720 724"
).split()
_DIGITS = "0123456789"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DOMAINS = ("example.com", "example.org", "example.net")
"""Reserved by RFC 2606: no address there is anybody's."""


@dataclass(frozen=True)
class Identifier:
    """One kind of structured secret."""

    lead: str
    """Words that stand right before it in a sentence."""
    draw: Callable[[SecretRandom], str]
    """One secret, uniform in the space."""
    space: int
    """How many secrets there are, |R|."""

    @property
    def space_bits(self) -> float:
        """log2 |R|."""
        return math.log2(self.space)


def luhn_digit(digits: str) -> str:
    """The digit that, put after `digits`, makes the sum of Luhn (ISO/IEC 7812) a multiple of 10."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _phone(draw: SecretRandom) -> str:
    exchange = f"{draw.randrange(2, 10)}{draw.randrange(100):02d}"
    while exchange.endswith("11"):  # 911 and its like are services
        exchange = f"{draw.randrange(2, 10)}{draw.randrange(100):02d}"
    return f"({draw.choice(_AREAS)}) {exchange}-{draw.randrange(10_000):04d}"


def _card(draw: SecretRandom) -> str:
    digits = "4" + "".join(draw.choice(_DIGITS) for _ in range(14))
    digits += luhn_digit(digits)
    return " ".join(digits[start : start + 4] for start in range(0, 16, 4))


def _email(draw: SecretRandom) -> str:
    name = "".join(draw.choice(_LETTERS) for _ in range(7))
    return f"{name}{draw.randrange(100):02d}@{draw.choice(_DOMAINS)}"


IDENTIFIERS = {
    "phone": Identifier("phone is", _phone, len(_AREAS) * 792 * 10**4),
    "card": Identifier("credit card is", _card, 10**14),
    "email": Identifier("e-mail is", _email, 26**7 * 100 * len(_DOMAINS)),
}
"""Every kind, by the name of its family."""
