"""One MLflow server: asked politely, and every refusal one message that says what was done."""

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dpmlm.artifacts.endpoints import refuse_clear
from dpmlm.errors import UserError

_T = TypeVar("_T")
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""MLflow's own, where the environment does not say otherwise: nobody but the server that was named
is talked to, one that is down is given up in seconds, and standard output is ours."""
_ABSENT = {"RESOURCE_DOES_NOT_EXIST"}
_PROXIED = "mlflow-artifacts"


class Server:
    """A client of one server, and what was done there."""

    def __init__(self, uri: str) -> None:
        """Refuses an address without TLS on another machine, and one that holds credentials."""
        self.uri = _checked(uri)
        self._done: list[str] = []
        self.client = _client(self.uri)

    def ask(self, what: str, act: Callable[[], _T]) -> _T:
        """The answer; UserError, saying what was asked, where there is none."""
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            return act()
        except (MlflowException, RequestException) as error:
            raise self._refused(what, _reason(error)) from None

    def ask_for(self, what: str, act: Callable[[], _T]) -> _T | None:
        """The answer, or None where the server says that there is no such thing."""
        from mlflow.exceptions import MlflowException

        def asked() -> _T | None:
            try:
                return act()
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

        return self.ask(what, asked)

    def did(self, what: str) -> None:
        """Remember it for a message that comes later."""
        self._done.append(what)

    def need_registry(self) -> None:
        """UserError, before anything is done, for a server that registers no models."""
        self.ask("list its models", lambda: self.client.search_registered_models(max_results=1))

    def check_store(self, run: Any) -> None:
        """UserError unless the artifacts of a run are kept behind this server itself."""
        parts = urlsplit(str(run.info.artifact_uri))
        if parts.scheme != _PROXIED or parts.netloc:
            raise self._refused(
                "keep artifacts", f"they would lie at {ascii(parts.scheme)[:40]}, not behind it"
            )

    def _refused(self, what: str, reason: str) -> UserError:
        done = f"done before: {', '.join(self._done)}" if self._done else "nothing was done there"
        return UserError(
            f"MLflow server {self.uri}",
            f"it does not {what} ({reason})",
            f"{done}; mend that, and repeat the same command, which goes on from there",
        )


def _checked(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        secret = parts.username is not None or parts.password is not None
    except ValueError:
        known = secret = False
    if secret:
        raise UserError(
            "--tracking-uri",
            "credentials are no part of an address: others see arguments",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if not known or not uri.isprintable():
        raise UserError(
            f"--tracking-uri {ascii(uri)[:80]}",
            "it is no address of an MLflow server",
            "name one that begins with https://, or http:// on this machine",
        )
    refuse_clear(f"--tracking-uri {uri}", uri, "releases travel")
    return uri


def _client(uri: str) -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise UserError(
            f"--tracking-uri {uri}",
            "MLflow servers need mlflow-skinny, which is not installed",
            "run `pip install 'dpmlm-framework[mlflow]'`",
        ) from None
    for name in ("mlflow", "urllib3"):  # which warns of every call that it tries again
        logging.getLogger(name).setLevel(logging.ERROR)
    # Both are named: the environment may have another server for models.
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _reason(error: Exception) -> str:
    """A word for it; the server's own text is shown to nobody, as it may say anything."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    code = getattr(error, "error_code", None)
    cause = error.__cause__ or error.__context__
    words = [str(code)] if code else []
    if cause is not None:
        words.append(type(cause).__name__)
    return ", ".join(words) or type(error).__name__
