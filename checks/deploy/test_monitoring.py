"""Alert rules and dashboard: Prometheus' own tool reads them, and each metric that they name exists."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin.engine.deliver.worker_metrics import WorkerMetrics
from tocsin.http.observability import Metrics

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "tocsin.json").read_text("utf-8"))

# What an alert is given, minute by minute, and whether it fires after twenty minutes.
SERIES = {
    "TocsinDown": ('up{job="tocsin-worker", instance="w"}', "0x30"),
    "TocsinDeliveriesLate": ('tocsin_delivery_late_seconds{channel="email"}', "0+30x30"),
    "TocsinProviderFailing": ('tocsin_provider_failing{provider="email"}', "1x30"),
    "TocsinServerErrors": ('tocsin_http_requests_total{status="503"}', "0+60x30"),
    "TocsinAttemptsFail": (
        'tocsin_attempts_total{channel="email", outcome="rejected"}',
        "0+60x60",
    ),
    "TocsinReplicaNotUsed": ('tocsin_replica_reads_total{outcome="behind"}', "0+20x60"),
    "TocsinMailsComeBack": ('tocsin_mail_events_total{source="ses", kind="bounce"}', "0+20x60"),
}


def rules() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return {each["alert"]: each for each in group["rules"]}


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return panels + [each["expr"] for each in rules().values()]


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_alert_rules() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", ALERTS)


def test_prometheus_accepts_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}), "utf-8")
    assert f"SUCCESS: {len(recorded)} rules found" in promtool("check", "rules", file)


@pytest.mark.parametrize("name", rules())
def test_an_alert_fires_where_it_has_to_and_not_otherwise(name: str, tmp_path: Path) -> None:
    series, values = SERIES[name]
    quiet = re.sub(r"^0\+\d+|^\d+", "1" if series.startswith("up") else "0", values)
    for given, fires in ((values, True), (quiet, False)):
        checked = {
            "rule_files": [str(ALERTS)],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": series, "values": given}],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                            "eval_time": "30m",
                            "exp_samples": [{"value": 1}] if fires else [],
                        }
                    ],
                }
            ],
        }
        file = tmp_path / "test.yaml"
        file.write_text(yaml.safe_dump(checked), "utf-8")
        promtool("test", "rules", file)


def test_each_metric_that_they_name_exists() -> None:
    service, worker = Metrics(), WorkerMetrics()
    service.mail_events["ses", "bounce"] += 1
    service.replica_reads = Counter()
    kinds = [each for registry in (service, worker.registry) for each in registry.collect()]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    existing = {each.name + suffix for each in kinds for suffix in suffixes[each.type]}
    named = set(re.findall(r"\b(?:tocsin|process)_[a-z_]+", " ".join(expressions())))
    assert named <= existing, named - existing
