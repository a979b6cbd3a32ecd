"""Recognizers that a policy names by their class: Presidio's remote ones, or one's own.

Text leaves the machine where such a recognizer sends it, and what comes back may change from run to
run: both are for whoever writes the policy to answer for.
"""

import importlib
import os
from typing import Any

from presidio_analyzer import AnalysisExplanation, EntityRecognizer, RecognizerResult

from dpmlm.errors import UserError
from dpmlm.scrub.policy import Remote


def remote_recognizer(asked: Remote) -> EntityRecognizer:
    """The recognizer, built. Raises UserError when there is none or it cannot be built."""
    given = f"engine.remote: {asked.recognizer}"
    kind = _class_of(asked.recognizer, given)
    missing = sorted(v for v in asked.environment.values() if v not in os.environ)
    if missing:
        raise UserError(
            given,
            f"the environment has no {', '.join(missing)}",
            "set it before the run: secrets stand in no policy file",
        )
    secrets = {name: os.environ[variable] for name, variable in asked.environment.items()}
    try:
        recognizer = kind(**asked.arguments, **secrets)
    except (
        Exception
    ) as error:  # anything may go wrong in another's code, with secrets in the message
        raise UserError(
            given,
            f"it cannot be built from these arguments ({type(error).__name__})",
            "compare them with the class's own documentation and install what it needs",
        ) from None
    if recognizer.supported_language != "en":
        raise UserError(given, "it is not for English", "set its supported_language to en")
    return _Told(recognizer, given)


def _class_of(path: str, given: str) -> Any:
    module, _, name = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            given,
            f"there is no such class ({type(error).__name__})",
            "write package.module:ClassName, and install the package",
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, EntityRecognizer)):
        raise UserError(
            given, "it is no EntityRecognizer of presidio_analyzer", "name a class that is one"
        )
    return kind


class _Told(EntityRecognizer):
    """A recognizer whose failures are told without a word of the text."""

    def __init__(self, recognizer: EntityRecognizer, given: str) -> None:
        self._recognizer, self._given = recognizer, given
        self._called: str = recognizer.name  # type: ignore[has-type]
        super().__init__(
            supported_entities=recognizer.get_supported_entities(),
            name=self._called,
            context=recognizer.context,
        )

    def load(self) -> None:
        """Presidio calls it once; a built recognizer has loaded itself."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any) -> list[RecognizerResult]:
        """Findings of the recognizer. Raises UserError when it fails: none found is no answer."""
        asked = [entity for entity in entities if entity in self.supported_entities]
        try:
            results = self._recognizer.analyze(text, asked, nlp_artifacts) or []
        except Exception as error:
            raise UserError(
                self._given,
                f"it failed ({type(error).__name__}), and no text is scrubbed without it",
                "see that its service answers, or take it out of the policy",
            ) from None
        return [self._own(r) for r in results if 0 <= r.start < r.end <= len(text)]

    def _own(self, result: RecognizerResult) -> RecognizerResult:
        return RecognizerResult(
            result.entity_type,
            result.start,
            result.end,
            result.score,
            AnalysisExplanation(recognizer=self._called, original_score=result.score),
            {
                RecognizerResult.RECOGNIZER_NAME_KEY: self._called,
                RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id,
            },
        )
