"""Dashboards and rules speak of metrics that there are, and promtool takes what Prometheus is to take."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import figures
from tests.metric_names import HISTOGRAMS, METRIC_NAMES, OF_THE_SDK

pytestmark = pytest.mark.unit

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RULES = DEPLOY / "prometheus/rules.yml"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
SOURCES = {
    source["uid"]: source["type"]
    for source in yaml.safe_load((DEPLOY / "grafana/datasources.yaml").read_text())["datasources"]
}
OF_PROMETHEUS = {"up", "ALERTS"}
SERIES = METRIC_NAMES | {name + part for name in HISTOGRAMS for part in ("_bucket", "_sum", "_count")}
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
LABELS = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
ASIDE = re.compile(rf'"[^"]*"|\{{[^}}]*\}}|\[[^\]]*\]|{LABELS}|\b\d[\w.]*')

promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(not promtool, reason="no promtool here (Debian: apt-get install prometheus)")


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    strings = re.sub(r'"[^"]*"', "", expression)
    words = re.findall(r"[A-Za-z_:][\w:]*(?!\w*\s*\()", ASIDE.sub(" ", strings))
    return set(words) - WORDS


def read(dashboard: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(dashboard.read_text())
    return content


def sources_in(part: Any) -> Iterator[dict[str, str]]:
    """Every data source that some part of a dashboard names."""
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        part = list(part.values())
    if isinstance(part, list):
        yield from itertools.chain.from_iterable(sources_in(member) for member in part)


def expressions_in(dashboard: dict[str, Any]) -> list[str]:
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    notes = dashboard["annotations"]["list"]
    return [part["expr"] for part in (*targets, *notes) if part["datasource"]["type"] == "prometheus"]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def run_promtool(*arguments: str | Path) -> None:
    assert promtool
    ran = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_names_that_dashboards_may_use_are_those_that_are_measured() -> None:
    measured = {*figures.WORKER, *figures.EVERYONE, *figures.API, *figures.TRACING} - {"target_info"}
    assert {name.removesuffix("_total") for name in METRIC_NAMES - OF_THE_SDK} == measured


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up == 0", {"up"}),
        ('max by (queue) (a_b{c="d e"}) > 300 and on (x) f', {"a_b", "f"}),
        ("sum(rate(a_sum[5m])) / sum (rate(a_count[$__rate_interval])) > 1e3 or vector(0)", {"a_sum", "a_count"}),
        ('a{b=~"{c}|d"} offset 5m', {"a"}),
    ],
)
def test_metrics_are_found_in_an_expression(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_metrics_that_there_are(dashboard: Path) -> None:
    expressions = expressions_in(read(dashboard))
    assert len(expressions) > 20
    for expression in expressions:
        names = names_in(expression)
        assert names, expression
        assert names <= SERIES | OF_PROMETHEUS, expression


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_the_variables_of_a_dashboard_come_from_metrics_that_there_are(dashboard: Path) -> None:
    content = read(dashboard)
    variables = {variable["name"]: variable for variable in content["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)(\w+)", " ".join(expressions_in(content))))
    assert used == set(variables)
    for variable in variables.values():
        asked = re.fullmatch(r"label_values\((\w+), \w+\)", variable["query"]["query"])
        assert asked
        assert asked[1] in METRIC_NAMES


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_data_sources_that_are_provisioned(dashboard: Path) -> None:
    found = list(sources_in(read(dashboard)))
    assert found
    assert all(SOURCES.get(source["uid"]) == source["type"] for source in found)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_of_a_dashboard_lies_over_another(dashboard: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in read(dashboard)["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_the_panels_of_a_dashboard_can_be_told_apart(dashboard: Path) -> None:
    panels = read(dashboard)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        names = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(names)) == len(names)


def test_grafana_finds_both_dashboards_where_they_are_mounted() -> None:
    dashboards = {path.stem: read(path) for path in DASHBOARDS}
    assert set(dashboards) == {"pipeline", "transcription"}
    assert len({dashboard["uid"] for dashboard in dashboards.values()}) == 2
    (provider,) = yaml.safe_load((DEPLOY / "grafana/dashboards.yaml").read_text())["providers"]
    grafana = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert home.stem in dashboards


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_metrics_that_there_are(alert: dict[str, Any]) -> None:
    assert names_in(alert["expr"]) <= SERIES | OF_PROMETHEUS


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook"] == f"deploy/README.md#{name.lower()}"
    _, _, runbook = (DEPLOY / "README.md").read_text().partition(f"\n### {name}\n")
    assert len(runbook.partition("\n### ")[0].split()) > 10


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_is_shown_to_fire_and_not_to_fire(alert: dict[str, Any]) -> None:
    suite = yaml.safe_load((DEPLOY / "prometheus/rules_test.yml").read_text())
    shown = [
        bool(case["exp_alerts"])
        for test in suite["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert["alert"]
    ]
    assert set(shown) == {True, False}


def test_scaling_asks_for_metrics_that_there_are() -> None:
    queries = re.findall(r"^ +query: (.+)$", (DEPLOY / "keda.yaml").read_text(), re.MULTILINE)
    assert queries
    assert set().union(*map(names_in, queries)) <= SERIES


@needs_promtool
def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    configuration = (DEPLOY / "prometheus/prometheus.yml").read_text()
    (tmp_path / "key").write_text("riacho_made-up")
    (tmp_path / "prometheus.yml").write_text(configuration.replace("/run/secrets/prometheus_key", "key"))
    shutil.copy(RULES, tmp_path)
    run_promtool("check", "config", tmp_path / "prometheus.yml")


@needs_promtool
def test_promtool_takes_the_rules_without_a_complaint() -> None:
    run_promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@needs_promtool
def test_every_alert_fires_when_it_has_to_and_only_then() -> None:
    run_promtool("test", "rules", DEPLOY / "prometheus/rules_test.yml")


@needs_promtool
def test_promtool_understands_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    expressions = [expression for path in DASHBOARDS for expression in expressions_in(read(path))]
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "1m").replace("$stage", ".*")}
        for number, text in enumerate(expressions)
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run_promtool("check", "rules", tmp_path / "panels.yml")
