"""A remote recognizer of one's own: asks an HTTP server for names and where they stand."""

import json
import urllib.request
from typing import Any

from presidio_analyzer import RecognizerResult, RemoteRecognizer


class LoopbackRecognizer(RemoteRecognizer):
    """Sends the text to `url` with a key."""

    def __init__(self, url: str, key: str, context: list[str] | None = None) -> None:
        super().__init__(
            supported_entities=["PERSON"],
            name="Loopback",
            supported_language="en",
            version="1",
            context=context,
        )
        self._url, self._key = url, key

    def get_supported_entities(self) -> list[str]:
        """Persons."""
        return ["PERSON"]

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any) -> list[RecognizerResult]:
        """What the server answers."""
        body = json.dumps({"text": text, "entities": entities}).encode()
        request = urllib.request.Request(self._url, body, {"X-Key": self._key})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [RecognizerResult("PERSON", *found) for found in json.load(answer)]


class NotARecognizer:
    """Something else."""


class GermanRecognizer(LoopbackRecognizer):
    """For another language."""

    def __init__(self) -> None:
        super().__init__("", "")
        self.supported_language = "de"
