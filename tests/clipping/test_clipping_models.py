"""Every masked-LM type of transformers: exact, or refused before training.

    pytest tests/clipping/test_clipping_models.py --write-docs

writes the table of docs/models.md from the same measurements.
"""

import math
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from microbatch import assert_same, grads, micro_batch
from small_models import KINDS, VOCABULARY, small_model
from torch import nn
from variants import rest_in_full

from dpmlm.clipping import ModelReport, check_model, clip_and_sum, padding_matters
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch

pytestmark = pytest.mark.xdist_group("models")

PAGE = Path(__file__).parents[2] / "docs/models.md"
REFUSED = {"big_bird", "mra", "reformer"}
SHAPES = [(6, 14), (8, 8), (4, 32)]
"""Rows and tokens; rows and tokens of one number must not be taken for each other."""


USUAL = {"bert", "deberta-v2", "mpnet", "modernbert"}
"""Types that the fast suite looks at, with those that are refused."""


def by_use(kinds):
    """All types, the rarer of them left to the full suite."""
    return rest_in_full(kinds, USUAL | REFUSED)


@cache
def report_of(kind: str) -> ModelReport:
    """What a fresh small model of a type was found to be."""
    return check_model(small_model(kind), VOCABULARY)


def ragged(rows: int, width: int) -> MaskedBatch:
    """Rows of many lengths, one of a single token and one without a mask; two rows one unit."""
    generator = torch.Generator().manual_seed(rows)
    lengths = torch.randint(2, width + 1, (rows,), generator=generator)
    lengths[0], lengths[1] = width, 1
    mask = torch.arange(width) < lengths[:, None]
    ids = torch.randint(5, VOCABULARY - 1, (rows, width), generator=generator)
    weights = torch.ones(rows, 3)
    weights[1, 1:], weights[2] = 0, 0
    return MaskedBatch(
        input_ids=ids.masked_fill(~mask, 0),
        attention_mask=mask.long(),
        masked_positions=(torch.rand(rows, 3, generator=generator) * lengths[:, None]).long(),
        masked_labels=torch.randint(5, VOCABULARY - 1, (rows, 3), generator=generator),
        masked_weights=weights,
        unit_index=torch.tensor([*range(rows - 1), 0]),
    )


@pytest.mark.parametrize("kind", by_use(KINDS))
def test_every_type_is_exact_or_refused(kind):
    report = report_of(kind)
    if kind in REFUSED:
        assert not report.exact
        assert report.reason
        return
    assert report.exact, report.reason
    model = small_model(kind)
    for rows, width in SHAPES:
        batch = ragged(rows, width)
        truth = micro_batch(model, batch)
        bound = float(truth.norms[truth.norms > 0].median())
        model.zero_grad()
        result = clip_and_sum(model, batch, bound)
        torch.testing.assert_close(result.losses, truth.losses, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(result.norms.double(), truth.norms, rtol=1e-5, atol=1e-7)
        assert_same(grads(model), truth.clipped(bound, 1e-5))


def test_at_least_45_types_are_exact():
    assert len(KINDS) - len(REFUSED) >= 45


@pytest.mark.parametrize("kind", rest_in_full(["deberta", "deberta-v2"], ["deberta"]))
def test_relative_attention_is_done_row_by_row(kind):
    model = small_model(kind, relative_attention=True, pos_att_type=["c2p", "p2c"])
    report = check_model(model, VOCABULARY)
    assert (report.exact, report.path) == (True, "row by row")


def test_a_parameter_of_two_kinds_of_module_is_done_row_by_row():
    model = small_model("esm")
    assert check_model(model, VOCABULARY).path == "one pass"
    model.lm_head.decoder.bias = model.lm_head.bias
    report = check_model(model, VOCABULARY)
    assert (report.exact, report.path) == (True, "row by row")


@pytest.mark.parametrize(
    "kind",
    rest_in_full(["fnet", "nystromformer", "convbert", "mobilebert"], ["fnet", "nystromformer"]),
)
def test_padding_that_reaches_a_row_is_noticed(kind):
    assert report_of(kind).padding_matters


@pytest.mark.parametrize(
    "kind", rest_in_full(["nystromformer", "yoso", "funnel", "mobilebert"], ["nystromformer"])
)
def test_reduced_types_do_not_hide_that_padding_matters(kind):
    model = small_model(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = check_model(model, VOCABULARY, window=40)
    assert report.padding_matters, report.reason


def test_a_row_does_not_depend_on_the_rows_before_it():
    model = small_model("big_bird")
    with pytest.raises(UserError, match="set_attention_type"):
        clip_and_sum(model, ragged(4, 16), 1.0)
    model.base_model.set_attention_type("original_full")
    report = check_model(model, VOCABULARY)
    assert (report.exact, report.path) == (True, "one pass"), report.reason


def test_statistics_of_the_batch_are_refused_and_taken_back():
    model = small_model("ibert").train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.raises(UserError, match="act"):
        clip_and_sum(model, ragged(4, 16), 1.0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_replayed_module_that_drops_is_done_row_by_row():
    model = small_model("deberta").train()
    torch.manual_seed(0)
    clip_and_sum(model, ragged(4, 16), 1.0)
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(UserError, match="inference_mode"):
        clip_and_sum(small_model("bert"), ragged(4, 16), 1.0)


def test_a_trainable_prompt_beside_the_model_is_refused():
    class Prompted(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.prompt = inner, nn.Parameter(torch.zeros(4, 32))

        def get_base_model(self):
            return self.inner

    report = check_model(Prompted(small_model("bert")), VOCABULARY)
    assert not report.exact
    assert "prompt" in report.reason


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2"])
def test_padding_that_is_ignored_is_no_matter(kind):
    assert not report_of(kind).padding_matters


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "fnet", "nystromformer"])
def test_padding_is_noticed_without_a_gradient(kind, frozen):
    model = small_model(kind).requires_grad_(not frozen).train()
    before = torch.random.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = padding_matters(model, VOCABULARY, window=40)
    assert found == report_of(kind).padding_matters
    assert all(param.grad is None for param in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_padding_is_looked_at_in_the_model_that_adapters_wrap():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def get_base_model(self):
            return self.inner

    assert padding_matters(Wrapped(small_model("fnet")), VOCABULARY)


def test_a_small_effect_of_padding_is_not_rounded_away():
    model = small_model("bert").eval()
    model.cls.predictions.decoder.register_forward_hook(
        lambda module, given, logits: logits * (1 + 1e-5 * logits.shape[1])
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert padding_matters(model, VOCABULARY, window=40)


def test_where_padding_cannot_be_looked_at_it_matters():
    model = small_model("bert")
    model.config.max_position_embeddings = 3
    assert padding_matters(model, VOCABULARY)


def test_a_tokenizer_of_another_model_is_no_pair():
    model = small_model("bert")
    with pytest.raises(UserError, match="not a pair"):
        padding_matters(model, model.get_input_embeddings().num_embeddings + 1)


def test_a_refused_type_is_refused_by_training_too():
    model = small_model("reformer")
    with pytest.raises(UserError, match="ReformerForMaskedLM"):
        clip_and_sum(model, ragged(4, 16), 1.0)
    assert all(p.grad is None for p in model.parameters())


def row(kind: str, report: ModelReport) -> str:
    """One line of the table in docs/models.md; errors to a power of ten, as machines differ."""
    model = small_model(kind)
    name = type(model).__name__
    if not report.exact:
        reason = report.reason.split(": ")[1].split(";")[0]
        return f"| `{kind}` | {name} | refused: {reason} | | | |"
    error = 10.0 ** math.ceil(math.log10(report.max_relative_error or 1e-9))
    bound = "1e-6" if error <= 1e-6 else f"{error:.0e}"
    padded = "to the window" if report.padding_matters else ""
    return (
        f"| `{kind}` | {name} | {report.path} | below {bound} | {padded} | {len(report.unused)} |"
    )


def table() -> list[str]:
    return [row(kind, report_of(kind)) for kind in KINDS]


@pytest.mark.full
def test_the_page_says_what_was_measured(request):
    if request.config.getoption("--write-docs"):
        write_page()
    page = PAGE.read_text()
    version = page.split("transformers ")[1].split(" ")[0]
    if transformers.__version__ != version:
        pytest.skip(f"docs/models.md is of transformers {version}, here {transformers.__version__}")
    for line in table():
        assert line in page, f"run pytest {Path(__file__).name} --write-docs"


def write_page() -> None:
    """Replace the table of docs/models.md."""
    before, _, rest = PAGE.read_text().partition("<!-- table -->")
    after = rest.partition("<!-- /table -->")[2]
    head = [
        f"With transformers {transformers.__version__} and torch {torch.__version__}:",
        "",
        "| type | class | how | relative error | padded | unused parameters |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines = "\n".join([*head, *table()])
    PAGE.write_text(f"{before}<!-- table -->\n{lines}\n<!-- /table -->{after}")
