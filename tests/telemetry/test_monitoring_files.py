"""The rules, dashboards and routes of examples/monitoring: they say what their tests say."""

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dpmlm.telemetry import GAUGES, METRICS, Label

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "monitoring"
PAGE, TICKET = FOLDER / "rules" / "page.yml", FOLDER / "rules" / "ticket.yml"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))


def tool(name: str) -> str:
    """A program of Debian's prometheus or prometheus-alertmanager; the test is skipped without."""
    path = os.environ.get("DPMLM_" + name.upper()) or shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} on the PATH or in DPMLM_{name.upper()}")
    return path


def alerts():
    """(file, rule) of every alert."""
    for file in (PAGE, TICKET):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from ((file, rule) for rule in group["rules"])


def test_file_of(alert: str) -> Path:
    words = re.findall("[A-Z][a-z]+", alert.removeprefix("Dpmlm"))
    return FOLDER / "tests" / ("-".join(words).lower() + ".yml")


test_file_of.__test__ = False
NAMES = {rule["alert"]: (file, rule) for file, rule in alerts()}


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"dpmlm_([a-z_]+)", expression))


def declared(expression: str) -> bool:
    """Whether all that it reads may be in a sink."""
    shown = set(GAUGES) | {name for name, one in METRICS.items() if one.label is not Label.PRIVATE}
    return names_in(expression) <= shown


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [tool("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_rules_and_configurations_are_taken_by_their_programs():
    assert promtool("check", "config", FOLDER / "prometheus.yml").returncode == 0
    done = promtool("check", "rules", PAGE, TICKET)
    assert (done.returncode, done.stdout.count("SUCCESS")) == (0, 2)


def test_alerts_have_a_severity_a_text_a_runbook_and_a_test():
    assert len(NAMES) == 9
    for name, (file, rule) in NAMES.items():
        assert rule["labels"]["severity"] == file.stem
        assert rule["annotations"].keys() == {"summary", "runbook_url"}
        assert rule["annotations"]["runbook_url"].startswith(("docs/runbooks/", "docs/monitoring"))
        assert test_file_of(name).is_file()
        assert declared(rule["expr"])
        endings = (  # by which Alertmanager groups
            "* on (instance, run) group_left (version) dpmlm_info",
            "* on (run) group_right () max by (run, version) (dpmlm_info)",
        )
        assert rule["expr"].strip().endswith(endings)
    assert len(list((FOLDER / "tests").iterdir())) == len(NAMES)


@pytest.mark.parametrize("alert", NAMES)
def test_the_test_of_a_rule_passes(alert):
    done = promtool("test", "rules", test_file_of(alert))
    assert done.returncode == 0, done.stdout + done.stderr


def changed(rule: dict) -> list[dict]:
    """The rule with one number, comparison or window of its expression, or its wait, changed."""
    expr, found = rule["expr"], []
    for match in re.finditer(r"(?<![\w.\[])\d+(\.\d+)?(?![\w.\]])", expr):
        number = match[0]
        others = [f"{float(number) * f:g}" for f in (0.8, 1.2)]
        if "." not in number:
            others = [str(int(number) - 1), str(int(number) + 1)]
        found += [expr[: match.start()] + other + expr[match.end() :] for other in others]
    swaps = {"==": "!=", ">=": "<", ">": "<=", "<": ">="}
    for match in re.finditer(r"==|>=|>|<", expr):
        found.append(expr[: match.start()] + swaps[match[0]] + expr[match.end() :])
    for match in re.finditer(r"(?<=\[)\w+(?=\])", expr):
        others = half_and_double(match[0])
        found += [expr[: match.start()] + other + expr[match.end() :] for other in others]
    rules = [rule | {"expr": other} for other in found]
    if "for" in rule:
        rules += [rule | {"for": other} for other in half_and_double(rule["for"])]
    return rules


def half_and_double(time: str) -> list[str]:
    """Of a time such as 10m."""
    minutes = int(time[:-1]) * {"m": 1, "h": 60, "d": 60 * 24}[time[-1]]
    return [f"{minutes * 30}s", f"{minutes * 2}m"]


MUTANTS = [(alert, number) for alert, (_, rule) in NAMES.items()
           for number in range(len(changed(rule)))]  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize(("alert", "number"), MUTANTS)
def test_a_changed_rule_fails_its_test(alert, number, tmp_path):
    file, rule = NAMES[alert]
    mutant = changed(rule)[number]
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    group = {"groups": [{"name": "mutant", "rules": [mutant]}]}
    (tmp_path / "rules" / file.name).write_text(yaml.safe_dump(group))
    copy = shutil.copy(test_file_of(alert), tmp_path / "tests")
    assert promtool("check", "rules", tmp_path / "rules" / file.name).returncode == 0
    done = promtool("test", "rules", copy)
    assert done.returncode == 1, f"nothing notices {mutant['expr']}"


def test_pages_and_tickets_go_where_they_should_and_a_page_hides_tickets():
    config = FOLDER / "alertmanager.yml"
    amtool = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
    program = tool("amtool")
    amtool([program, "check-config", str(config)])
    for severity in ("page", "ticket"):
        command = [program, "config", "routes", "test", f"--config.file={config}"]
        assert amtool([*command, f"severity={severity}"]).stdout.split()[0].startswith(severity)
    loaded = yaml.safe_load(config.read_text())
    assert "version" in loaded["route"]["group_by"]
    assert loaded["inhibit_rules"][0]["equal"] == ["run"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_a_sound_form_and_reads_what_a_run_tells(path):
    page = json.loads(path.read_text())
    assert (page["schemaVersion"], page["uid"]) == (39, f"dpmlm-{path.stem}")
    variables = {one["name"]: one for one in page["templating"]["list"]}
    assert variables.keys() == {"datasource", "run"}
    panels = page["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [cell for panel in panels for cell in cells_of(panel["gridPos"])]
    assert len(set(cells)) == len(cells)  # no overlap
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert names_in(target["expr"])
            assert declared(target["expr"])
            assert 'run=~"$run"' in target["expr"]


def test_there_is_a_dashboard_for_each_reader():
    assert [path.stem for path in DASHBOARDS] == ["debug", "executive", "on-call"]


def cells_of(place: dict[str, int]) -> list[tuple[int, int]]:
    across = range(place["x"], place["x"] + place["w"])
    return list(itertools.product(across, range(place["y"], place["y"] + place["h"])))


def test_an_undeclared_or_private_figure_would_be_found():
    assert not declared("dpmlm_loss > 3")
    assert not declared("dpmlm_perplexity")
    assert declared("dpmlm_step / dpmlm_steps_planned")


def test_every_runbook_that_an_alert_names_is_there():
    for _, rule in NAMES.values():
        path, _, part = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / path).is_file()
        assert (
            not part or f"### {part.replace('-', ' ').capitalize()}\n" in (ROOT / path).read_text()
        )


def test_the_page_lists_every_alert_with_its_severity():
    page = (ROOT / "docs" / "monitoring.md").read_text()
    told = re.findall(r"^\| `(Dpmlm\w+)` \| (\w+) \|", page, re.M)
    assert told == [(name, rule["labels"]["severity"]) for name, (_, rule) in NAMES.items()]
