"""What a Prometheus server reads: the latest figures as text, in a file or behind a port.

The format is that of Prometheus' text exposition, version 0.0.4. No line carries a time: when a
figure came is for the one who scrapes to note.
"""

import math
import socket
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer

from dpmlm.artifacts.atomic import atomic_write
from dpmlm.errors import UserError
from dpmlm.telemetry.gauges import GAUGES, Gauge, gauge
from dpmlm.telemetry.metrics import METRICS, Event, Label
from dpmlm.telemetry.sinks import cleared, flat

PREFIX = "dpmlm_"
"""Of every name there."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST = "# dpmlm run "
"""How every textfile begins; the run's name follows."""
_SLOW_CLIENT_SECONDS = 5
_QUIET_SECONDS = 1.0
"""A file is replaced no more often for gauges alone."""


class Board:
    """The latest value of each figure; one thread writes, others read."""

    def __init__(self, run: str, clearance: Label) -> None:
        if clearance is Label.PRIVATE:
            raise ValueError("a page in clear has no clearance for private figures")
        self.run, self._clearance = run, clearance
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._figures: dict[str, float] = {}
        self._lock = threading.Lock()

    def write(self, events: Sequence[Event]) -> None:
        """The figures of the last step."""
        latest = flat(cleared(events[-1], self._clearance)) if events else {}
        with self._lock:
            self._figures = {name: float(v) for name, v in latest.items() if v is not None}

    def gauge(self, name: str, value: float, **labels: str) -> None:
        name, named, value = gauge(name, value, labels)
        if not GAUGES[name].shown(self._clearance):
            return
        with self._lock:
            self._gauges[name, named] = value

    def page(self) -> str:
        """All of it, one family after the other."""
        with self._lock:
            rows: list[Gauge] = [(name, (), value) for name, value in self._figures.items()]
            rows += [(name, labels, value) for (name, labels), value in self._gauges.items()]
        lines, family = [], ""
        for name, labels, value in sorted(rows):
            if name != family:
                family = name
                told = METRICS[name].meaning if name in METRICS else GAUGES[name].meaning
                lines += [
                    f"# HELP {PREFIX}{name} {_escaped(told)}",
                    f"# TYPE {PREFIX}{name} gauge",
                ]
            written = ",".join(
                f'{key}="{_escaped(text, quoted=True)}"'
                for key, text in (("run", self.run), *labels)
            )
            lines.append(f"{PREFIX}{name}{{{written}}} {_number(value)}")
        return "".join(line + "\n" for line in lines)


class Textfile:
    """A file for node_exporter's textfile collector: `FILE.prom`, replaced in one rename.

    It outlives the run, so the verdict stays to be seen. Raises UserError for another ending, and
    where another run or something else has the name.
    """

    def __init__(self, path: Path, run: str, clearance: Label = Label.DP) -> None:
        self._path, self._board = path, Board(run, clearance)
        self._first = f"{_FIRST}{run}\n"
        self._written, self._stale = -math.inf, False
        self._refuse_other_content()

    def write(self, events: Sequence[Event]) -> None:
        self._board.write(events)
        self._replace()

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self._board.gauge(name, value, **labels)
        self._stale = True
        if time.monotonic() - self._written >= _QUIET_SECONDS:
            self._replace()

    def close(self) -> None:
        if self._stale:
            self._replace()

    def _replace(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path) as file:
            file.write((self._first + self._board.page()).encode())
        self._written, self._stale = time.monotonic(), False

    def _refuse_other_content(self) -> None:
        given = f"telemetry.prometheus.textfile {self._path}"
        if self._path.suffix != ".prom":
            raise UserError(
                given, "collectors read names that end in .prom alone", "give it such a name"
            )
        if not self._path.exists():
            return
        found = self._path.read_bytes()[: len(self._first) + 1] if self._path.is_file() else b"?"
        if found and not found.startswith(self._first.encode()):
            raise UserError(
                given,
                "the figures of another run or something else lie there, and would be replaced",
                "choose another name, or remove the file",
            )


class Endpoint:
    """A port of this machine with the page at `/metrics`, until `close`.

    Raises UserError where the port is taken or the address is none of this machine's.
    """

    def __init__(
        self, port: int, run: str, clearance: Label = Label.DP, *, address: str = "127.0.0.1"
    ) -> None:
        """`port` 0 takes any that is free."""
        self._board = Board(run, clearance)
        try:
            self._server = _Server((address, port), self._board)
        except OSError as error:
            raise UserError(
                f"telemetry.prometheus {address} port {port}",
                f"nothing can listen there ({error.strerror})",
                "choose another port, or end what has it",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def write(self, events: Sequence[Event]) -> None:
        self._board.write(events)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self._board.gauge(name, value, **labels)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that reads slowly does not hold up the end of a run

    def __init__(self, place: tuple[str, int], board: Board) -> None:
        self.board = board
        if ip_address(place[0]).version == 6:
            self.address_family = socket.AF_INET6
        super().__init__(place, _Handler)

    def server_bind(self) -> None:
        """Without the look-up of the machine's name that HTTPServer makes."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _SLOW_CLIENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = self.server.board.page().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "dpmlm"

    def log_message(self, format: str, *args: object) -> None:
        """Who scrapes is not logged."""


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it. Raises ValueError for what is no address."""
    return ip_address(address).is_loopback


def _escaped(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
