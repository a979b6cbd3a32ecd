"""The two ways a call may end that are not bugs.

A `UserError` is the caller's to mend: bad input, a missing key, a refused budget. The command
line prints it as one message and exits 2. A `VerdictNo` is an answer, not a failure to answer:
the work was done and the verdict is no. The command line exits 1. Anything else that escapes is
a bug and keeps its traceback (exit 70).
"""


class UserError(Exception):
    """What was given, the rule it breaks, and what to do next.

    `given` must not carry private text or numbers computed from it: messages reach logs.
    """

    def __init__(self, given: str, rule: str, next_step: str) -> None:
        super().__init__(given, rule, next_step)
        self.given, self.rule, self.next_step = given, rule, next_step

    def __str__(self) -> str:
        return f"{self.given}: {self.rule}; {self.next_step}"


class IntegrityError(UserError):
    """Sealed or signed bytes are not what their writer wrote, or not under this key."""


class VerdictNo(Exception):
    """The work was done and the answer is no: FAIL, INCONCLUSIVE, a verification that failed."""


def visible(text: str) -> str:
    """`text` with what a terminal might obey spelled out; for what others may have written."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
