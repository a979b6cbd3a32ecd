"""The templates, and the words that all of them may use."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from dpmlm.release import provenance
from dpmlm.release.report import threats, words


@cache
def environment() -> Environment:
    """Templates with escaping on and undefined names refused."""
    environment = Environment(
        loader=PackageLoader("dpmlm.release.report", "."),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": words.shown,
        "referred": words.referred,
        "required": words.required,
        "percent": words.kept_together,
        "breakable": words.breakable,
    }
    environment.globals |= {
        "status": words.STATUS,
        "subjects": words.SUBJECTS,
        "annotations": words.ANNOTATIONS,
        "stages": provenance.STAGES,
        "threats": threats.THREATS,
        "limits": threats.LIMITS,
    }
    return environment
