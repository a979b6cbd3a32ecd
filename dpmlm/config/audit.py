"""`audit:` in a run file: how the model is attacked before release."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dpmlm.config.section import Section
from dpmlm.config.text import PublicCorpusConfig


class CanaryGroupConfig(Section):
    """Canaries beside those of the gating tests: looked at, and never pooled with others."""

    family: Literal["rare_tokens", "random_words", "rare_suffix", "phone", "card", "email"]
    """How secrets are made: products of tokens, or identifiers written as text."""
    count: int = Field(ge=1, le=50_000)
    """Planted secrets; each is included by a fair coin."""
    copies: int = Field(1, ge=1, le=10**4)
    """Units an included secret is inserted in; the claim covers 1."""
    arm: Literal["exempt", "pipeline"] = "exempt"
    """exempt: rows beside the corpus' tokens; pipeline: documents that are scrubbed and
    deduplicated like any other, identifiers alone."""

    @model_validator(mode="after")
    def _documents_are_text(self) -> Self:
        tokens = ("rare_tokens", "random_words", "rare_suffix")
        if self.arm == "pipeline" and self.family in tokens:
            raise ValueError(
                f"family {self.family} is made of tokens, and documents of arm pipeline are text "
                "before there is a tokenizer: use phone, card or email, or arm exempt"
            )
        return self


class AuditConfig(Section):
    """How the model is attacked before release."""

    canaries: int = Field(1000, ge=0, le=10**6)
    """Planted secrets; each is included by a fair coin."""
    copies: int = Field(1, ge=1, le=10**4)
    """Units an included secret is inserted in; the claim covers 1."""
    groups: list[CanaryGroupConfig] = Field(default_factory=list, max_length=99)
    """Exploratory canaries of other families, copies and arms; no gating test looks at them."""
    gradient_canaries: int = Field(0, ge=0, le=10**5)
    """Planted directions in the clipped sum, for the white-box audit; each by a fair coin."""
    control: PublicCorpusConfig | None = None
    """Public text for the non-private control; without one the audits show no power."""
    reference: str | None = None
    """A public masked LM to compare with; null takes the model before its training."""
    verbatim_spans: int = Field(300, ge=0, le=10**6)
    """Training spans tried for verbatim extraction, and as many held-out twins."""
    verbatim_grid: Literal["standard", "full"] = "standard"
    """Cells explored beside the declared one: a few on some spans, or all on all of them."""
    membership: int = Field(200, ge=0, le=10**6)
    """Records of trained units, and as many of held-out ones, for membership inference."""
    identifiers: int = Field(0, ge=0, le=10**6)
    """Documents of each side in which identifiers are played for; their names are looked for."""
    beta: float = Field(0.05, ge=1e-3, lt=0.5)
    """False-alarm probability shared by all gating tests."""

    @model_validator(mode="after")
    def _groups_differ(self) -> Self:
        kinds = [(group.family, group.copies, group.arm) for group in self.groups]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(
                    f"two groups of family {kind[0]}, copies {kind[1]}, arm {kind[2]}: groups are "
                    "never pooled, so make one larger group of them"
                )
        if any(group.family == "rare_suffix" for group in self.groups) and self.control is None:
            raise ValueError(
                "family rare_suffix begins with words of public text: name it in audit.control"
            )
        return self

    @property
    def most_units(self) -> int:
        """Units that canaries occupy if every coin includes its canary."""
        planted = sum(group.count * group.copies for group in self.groups)
        return self.canaries * self.copies + planted + self.gradient_canaries
