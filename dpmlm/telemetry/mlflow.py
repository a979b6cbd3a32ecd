"""A run on an MLflow server, with figures by step."""

import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from dpmlm.artifacts.endpoints import refuse_clear
from dpmlm.errors import UserError
from dpmlm.telemetry.gauges import GAUGES
from dpmlm.telemetry.metrics import Event, Label
from dpmlm.telemetry.sinks import cleared, flat

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Unless the environment says otherwise: a server that is down must not hold up a training."""
_TAG = "dpmlm.training"
"""Tag of the run there: our name of the run, by which a training that is taken up finds it."""
_MOST = 1000
"""Metrics that a server takes at once."""


class Mlflow:
    """Logs each step once; where the server has them already, it keeps one of the two.

    Each figure carries its step in the place of a time, unless `times`; when a request came is for
    the server to see. Raises UserError for what is no address, one without TLS elsewhere, and where
    the package is missing. Nothing is sent before the first checkpoint.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run: str,
        clearance: Label = Label.PUBLIC,
        *,
        settings: str = "",
        times: bool = False,
    ) -> None:
        """`settings`: a digest by which a training that is taken up is told from another one of
        the same name."""
        if clearance is Label.PRIVATE:
            raise ValueError("a server has no clearance for private figures")
        _refuse_other_than_a_server(uri)
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric
        except ImportError:
            raise UserError(
                "telemetry.mlflow",
                "MLflow servers need mlflow-skinny, which is not installed",
                "run `pip install 'dpmlm-framework[mlflow]'`",
            ) from None
        self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._metric: Any = Metric
        self._experiment, self._run, self._clearance = experiment, run, clearance
        self._tag = f"{run} {settings}".strip()
        self._times = times
        self._there: str | None = None
        self._done = 0
        self._gauges: dict[str, float] = {}

    def write(self, events: Sequence[Event]) -> None:
        """Only the steps that were not sent yet."""
        rows = []
        for item in events[self._done :]:
            shown = flat(cleared(item, self._clearance))
            rows += [(name, v, item["step"]) for name, v in shown.items() if v is not None]
        self._send(rows + self._told(len(events)))
        self._done = len(events)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        if GAUGES[name].shown(self._clearance):
            self._gauges["/".join([f"run/{name}", *labels.values()])] = value

    def close(self) -> None:
        if self._there is not None:
            self._send(self._told(self._done))
            ended = self._gauges.get("run/ended") == 1  # else it was stopped, or failed
            self._client.set_terminated(self._there, status="FINISHED" if ended else "KILLED")

    def _told(self, step: int) -> list[tuple[str, float, int]]:
        return [(name, value, step) for name, value in self._gauges.items()]

    def _send(self, rows: Sequence[tuple[str, float, int]]) -> None:
        if self._there is None:
            self._there = self._find_or_create()
        now = int(time.time() * 1000)
        metrics = [
            self._metric(name, float(value), now if self._times else step, step)
            for name, value, step in rows
        ]
        for start in range(0, len(metrics), _MOST):
            self._client.log_batch(self._there, metrics=metrics[start : start + _MOST])

    def _find_or_create(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        where = found.experiment_id if found else self._client.create_experiment(self._experiment)
        runs = self._client.search_runs([where], f"tags.`{_TAG}` = '{self._tag}'", max_results=1)
        if runs:  # a training that is taken up
            there = str(runs[0].info.run_id)
            self._client.update_run(there, status="RUNNING")
            return there
        made = self._client.create_run(where, tags={_TAG: self._tag}, run_name=self._run)
        return str(made.info.run_id)


def _refuse_other_than_a_server(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and uri.isprintable()
        secret = parts.username is not None or parts.password is not None
    except ValueError:
        known = secret = False
    if secret:
        raise UserError(
            "telemetry.mlflow.uri",
            "credentials are no part of an address: run files are shared",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if not known:
        raise UserError(
            f"telemetry.mlflow.uri {ascii(uri)[:80]}",
            "it is no address of an MLflow server",
            "name one that begins with https://, or http:// on this machine",
        )
    refuse_clear(f"telemetry.mlflow.uri {uri}", uri, "figures travel")
