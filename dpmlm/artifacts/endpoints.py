"""Addresses of services: in clear only to this machine."""

from urllib.parse import urlsplit

from dpmlm.errors import UserError

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def refuse_clear(given: str, address: str, travels: str) -> None:
    """UserError unless `address` has TLS or is on this machine; `given` is how it was given, and
    `travels` what goes there."""
    try:
        parts = urlsplit(address)
        safe = parts.scheme == "https" or parts.hostname in _THIS_MACHINE
    except ValueError:
        safe = False
    if not safe:
        raise UserError(
            given,
            f"{travels} to it, so only an endpoint on this machine may be without TLS",
            "name an https:// endpoint",
        )
