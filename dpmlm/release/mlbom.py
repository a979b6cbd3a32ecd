"""The bill of materials of a bundle, CycloneDX 1.6: what is in it, and with what it was made.

Written by hand from the specification (https://cyclonedx.org/docs/1.6/json/), as its Python library
knows no model cards. Nothing in it is private, and the same bundle gives the same bytes: hashes are
of ciphertext, and no time or random serial number is in it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from dpmlm.release.gate import Decision
from dpmlm.release.report import words

NAME = "bom.cdx.json"
"""Of the file; the ending is the one that tools look for."""
LIBRARIES = (
    "cryptography",
    "dp-accounting",
    "dpmlm-framework",
    "numpy",
    "opacus",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
"""Packages that the weights, the accounting and the encryption depend on."""
UNKNOWN = "the package states none"
_LONGEST_NAME = 80
"""Characters of a license's name; beyond it stands a whole license."""


def bill_of_materials(
    *,
    model_digest: str,
    sealed: Mapping[str, Path],
    statement: Mapping[str, Any],
    decision: Decision,
) -> dict[str, Any]:
    """The document as JSON; `sealed` are the encrypted files of the model by name in the bundle.

    `statement` is `Statement.to_json()`; of `decision` only what is public is told.
    """
    files = [_file(name, path) for name, path in sorted(sealed.items())]
    libraries = [_library(name) for name in LIBRARIES]
    found = [library for library in libraries if library is not None]
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": "masked language model",
        "version": model_digest,
        "description": str(statement.get("sentence", "")),
        "modelCard": _card(statement, decision.public()),
        **_pedigree(statement),
        "components": files,
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": model},
        "components": found,
        "dependencies": [
            {"ref": "model", "dependsOn": sorted(library["bom-ref"] for library in found)},
            *({"ref": library["bom-ref"]} for library in found),
        ],
    }


def disagreements(
    bill: Mapping[str, Any],
    manifest: Mapping[str, Any],
    statement: Mapping[str, Any],
    decision: Decision,
) -> list[str]:
    """Places in a bill where it does not say of the model what the rest of its bundle says.

    `manifest` are the signed fields; hashes are compared with its files, where it has them. Prose
    and the list of libraries are the signer's.
    """
    try:
        model = bill["metadata"]["component"]
        card = model["modelCard"]
        told: dict[str, tuple[Any, Any]] = {
            "version": (model["version"], manifest["model_digest"]),
            "modelCard.properties": (card["properties"], _judged(decision)),
            "modelCard.quantitativeAnalysis": (card["quantitativeAnalysis"], _figures(statement)),
            "pedigree": (model.get("pedigree"), _pedigree(statement).get("pedigree")),
        }
        if "files" in manifest:
            hashes = {one["name"]: one["hashes"] for one in model["components"]}
            sealed = {n: r for n, r in manifest["files"].items() if n.endswith(".sealed")}
            signed = {n: _hashes(r["digest"].partition(":")[2]) for n, r in sealed.items()}
            told["components"] = (hashes, signed)
    except (KeyError, TypeError, AttributeError):
        return ["metadata.component"]
    return [f"metadata.component.{place}" for place, (has, due) in told.items() if has != due]


def _file(name: str, path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "description": "encrypted",
        "hashes": _hashes(content),
    }


def _hashes(content: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": content}]


def _library(name: str) -> dict[str, Any] | None:
    """A package that is installed; None for one that is not."""
    try:
        known = metadata(name)
    except PackageNotFoundError:
        return None
    version = known["Version"]
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}",
        **_licenses(known),
    }


def _licenses(known: PackageMetadata) -> dict[str, Any]:
    """What a package says of its license: an SPDX expression, else a name, else nothing."""
    expression = _first(known, "License-Expression")
    if expression:
        return {"licenses": [{"expression": expression}]}
    named = _first(known, "License").strip()
    if not named or "\n" in named or len(named) > _LONGEST_NAME:
        prefix = "License :: "
        classified = [c for c in known.get_all("Classifier") or () if c.startswith(prefix)]
        named = ", ".join(entry.rpartition(" :: ")[2] for entry in classified)
    if named:
        return {"licenses": [{"license": {"name": named}}]}
    return {"properties": [{"name": "dpmlm:license", "value": UNKNOWN}]}


def _first(known: PackageMetadata, name: str) -> str:
    """A field of the package, empty where it is not there."""
    values = known.get_all(name) or [""]
    return str(values[0])


def _card(statement: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
    """The model card: what is promised, what the gate said, what is not covered."""
    limits: Sequence[str] = statement.get("not_covered") or ()
    return {
        "modelParameters": {"approach": {"type": "self-supervised"}, "task": "fill-mask"},
        "quantitativeAnalysis": _figures(statement),
        "considerations": {
            "technicalLimitations": [str(limit) for limit in limits],
            "ethicalConsiderations": [
                {
                    "name": "what the model may give away of the text that it was trained on",
                    "mitigationStrategy": words.summary(decision),
                }
            ],
        },
        "properties": _judged(decision),
    }


def _figures(statement: Mapping[str, Any]) -> dict[str, Any]:
    figures = [
        {"type": name, "value": str(statement[name])}
        for name in ("epsilon", "delta")
        if statement.get(name) is not None
    ]
    return {"performanceMetrics": figures}


def _pedigree(statement: Mapping[str, Any]) -> dict[str, Any]:
    """The release that was trained further; nothing where none was."""
    continued = statement.get("continues")
    if not continued:
        return {}
    former = {
        "type": "machine-learning-model",
        "name": "masked language model",
        "version": str(continued["model"]),
        "properties": [
            {"name": f"dpmlm:{name}", "value": str(continued[name])}
            for name in ("release", "epsilon", "delta")
        ],
    }
    return {"pedigree": {"ancestors": [former]}}


def _judged(decision: Decision) -> list[dict[str, str]]:
    return [
        {"name": "dpmlm:policy", "value": decision.policy},
        {"name": "dpmlm:verdict", "value": decision.verdict},
    ]
