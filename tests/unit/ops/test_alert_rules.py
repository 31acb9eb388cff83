"""The shipped alerts, by promtool: each fires at its trouble within its time, and is silent when all is well."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.metrics import declared
from ops.cli.services import metrics_ports

DEPLOY = Path(__file__).parents[3] / "ops" / "deploy"
RULES = DEPLOY / "prometheus" / "retold.rules.yml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
FOLLOWER = '{consumer_name="follow",stream_name="REC_a"}'
PROMTOOL = shutil.which("promtool") or ""
WELL_S = 330  # longer than any alert waits

# Series while all is well, and by alert: what is different in its trouble, and by when it must have fired, seconds
WELL: dict[str, str] = {
    **{f'up{{job="retold-{job}",instance="1"}}': "1" for job in ("capture", "mixer", "gateway", "metrics")},
    'retold_nats_connected{job="retold-mixer"}': "1",
    'retold_nats_denied{job="retold-mixer"}': "0",
    "retold_capture_ready": "1",
    "retold_keeper_works": "1",
    "retold_archive_away": "0",
    "retold_sessions_damaged": "0",
    "retold_sessions_abandoned": "0",
    'retold_session_unheard_seconds{session="a"}': "0.02",
    'retold_session_dave_ready{session="a"}': "1",
    'retold_session_packets_total{session="a",outcome="recorded"}': "0+150",
    'retold_session_packets_total{session="a",outcome="undecryptable"}': "0+0",
    'retold_session_deafened{session="a"}': "0",
    'retold_session_unsaved_seconds{session="a"}': "0.3",
    'retold_publish_ack_seconds_bucket{le="1"}': "0+60",
    'retold_publish_ack_seconds_bucket{le="5"}': "0+60",
    'retold_publish_ack_seconds_bucket{le="+Inf"}': "0+60",
    'retold_session_spool_failures_total{session="a"}': "0",
    'retold_session_dropped_total{session="a"}': "0",
    f"jetstream_consumer_num_pending{FOLLOWER}": "0",
    f"jetstream_consumer_num_ack_pending{FOLLOWER}": "3",
    "retold_job_oldest_seconds": "2",
    'retold_renders_total{outcome="given_up"}': "0",
    "retold_renders_given_up": "0",
    "retold_storage_left_seconds": "8640000",
    "retold_storage_room_bytes": "50000000000",
    "retold_nats_frozen_streams": "0",
    "gnatsd_varz_jetstream_stats_storage": "1000",
    "gnatsd_varz_jetstream_config_max_storage": "100000",
    'retold_disk_free_bytes{place="data"}': "50000000000",
    'retold_advisories_total{kind="CONSUMER.MAX_DELIVERIES"}': "0",
    "retold_keeper_archive_failures_total": "0",
    "gnatsd_varz_slow_consumers": "0",
    "jetstream_server_total_streams": "200",
}
TROUBLE: dict[str, tuple[dict[str, str], int]] = {
    "RetoldCaptureAway": ({'up{job="retold-capture",instance="1"}': "0"}, 9),
    "RetoldMixerAway": ({'up{job="retold-mixer",instance="1"}': "0"}, 9),
    "RetoldGatewayAway": ({'up{job="retold-gateway",instance="1"}': "0"}, 9),
    "RetoldKeeperAway": ({"retold_keeper_works": "0"}, 63),
    "RetoldArchiveAway": ({"retold_archive_away": "1"}, 33),
    "RetoldSessionDamaged": ({"retold_sessions_damaged": "1"}, 9),
    "RetoldExporterAway": ({'up{job="retold-metrics",instance="1"}': "0"}, 18),
    "RetoldProcessDown": ({'up{job="retold-mixer",instance="2"}': "0"}, 18),
    "RetoldNatsAway": ({'retold_nats_connected{job="retold-mixer"}': "0"}, 9),
    "RetoldNatsDenies": ({'retold_nats_denied{job="retold-mixer"}': "1"}, 3),
    "RetoldBotNotReady": ({"retold_capture_ready": "0"}, 33),
    "RetoldSessionAbandoned": ({"retold_sessions_abandoned": "1"}, 18),
    "RetoldRoomUnheard": ({'retold_session_unheard_seconds{session="a"}': "4+3"}, 9),
    "RetoldRoomWithoutKeys": ({'retold_session_dave_ready{session="a"}': "0"}, 15),
    "RetoldUndecryptable": ({'retold_session_packets_total{session="a",outcome="undecryptable"}': "0+50"}, 18),
    "RetoldDeafened": ({'retold_session_deafened{session="a"}': "1"}, 15),
    "RetoldNotSaved": ({'retold_session_unsaved_seconds{session="a"}': "11+3"}, 9),
    "RetoldPublishSlow": ({'retold_publish_ack_seconds_bucket{le="1"}': "0+6"}, 24),
    "RetoldSpoolFails": ({'retold_session_spool_failures_total{session="a"}': "0+1"}, 9),
    "RetoldMessagesLost": ({'retold_session_dropped_total{session="a"}': "0+1"}, 9),
    "RetoldFollowerBehind": ({f"jetstream_consumer_num_pending{FOLLOWER}": "0+7"}, 9),
    "RetoldJobOld": ({"retold_job_oldest_seconds": "299+3"}, 39),
    "RetoldRenderGivenUp": ({'retold_renders_total{outcome="given_up"}': "0+1"}, 9),
    "RetoldStorageEndsSoon": ({"retold_storage_left_seconds": "500000"}, 63),
    "RetoldStorageFull": ({"gnatsd_varz_jetstream_stats_storage": "95000"}, 9),
    "RetoldStreamsFrozen": ({"retold_nats_frozen_streams": "2"}, 9),
    "RetoldDiskFull": ({'retold_disk_free_bytes{place="data"}': "900000000"}, 9),
    "RetoldAdvisory": ({'retold_advisories_total{kind="CONSUMER.MAX_DELIVERIES"}': "0+1"}, 9),
    "RetoldSlowConsumers": ({"gnatsd_varz_slow_consumers": "0+1"}, 24),
    "RetoldManyAssets": ({"jetstream_server_total_streams": "6000"}, 303),
}


def test_every_alert_has_its_trouble_here():
    """And says how bad it is, what is wrong, and what to do."""
    assert set(TROUBLE) == set(ALERTS)
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "action"}
        assert all(text.endswith(".") for text in rule["annotations"].values())


def test_both_configurations_watch_the_same():
    """In containers processes have names, beside `retold up` they have ports; the rest is one."""
    in_containers, beside_up = (
        yaml.safe_load((DEPLOY / "prometheus" / name).read_text()) for name in ("prometheus.yml", "local.yml")
    )
    jobs = [[job["job_name"] for job in each.pop("scrape_configs")] for each in (in_containers, beside_up)]
    assert jobs[0] == jobs[1]
    told = [each.pop("alerting")["alertmanagers"] for each in (in_containers, beside_up)]
    assert told[0][0]["dns_sd_configs"][0]["port"] == 9093
    assert told[1][0]["static_configs"][0]["targets"] == ["127.0.0.1:9093"]
    assert in_containers == beside_up


def test_units_of_systemd_have_the_ports_that_are_watched():
    """Beside each other on one machine, as `retold up` numbers them."""
    watched = {
        job["job_name"].removeprefix("retold-"): job["static_configs"][0]["targets"][0].rpartition(":")[2]
        for job in yaml.safe_load((DEPLOY / "prometheus" / "local.yml").read_text())["scrape_configs"]
    }
    units = {name: (DEPLOY / "systemd" / f"retold-{name}.service").read_text() for name in watched if name != "gateway"}
    assert {name: f"Environment=RETOLD_METRICS_PORT={watched[name]}\n" in text for name, text in units.items()} == (
        dict.fromkeys(units, True)
    )
    first = int(watched["capture"])
    assert metrics_ports(first) == {name: {"RETOLD_METRICS_PORT": watched[name]} for name in units}


def test_rules_speak_of_metrics_that_exist():
    """A metric that was renamed would silence its alert for ever."""
    known = {name for metric in declared.every() for name in (metric.name, f"{metric.name}_bucket")}
    recorded = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    for rule in [rule for group in GROUPS for rule in group["rules"]]:
        used = set(re.findall(r"\b(?:retold|jetstream|gnatsd)[a-z0-9_:]+", re.sub(r'"[^"]*"', "", rule["expr"])))
        assert used <= known | recorded, rule


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (Debian: prometheus)")
class TestByPromtool:
    """As Prometheus itself evaluates them."""

    @pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
    def test_configuration_and_rules_are_valid(self, name: str):
        """Both files, by Prometheus' own check."""
        subprocess.run([PROMTOOL, "check", "config", str(DEPLOY / "prometheus" / name)], check=True)

    def test_each_fires_in_time_and_none_when_all_is_well(self, tmp_path: Path):
        """One trouble at a time: its alert fires at its time; with every figure as it should be, none does."""
        cases = [case(changes, {name: True}, at_s=at_s) for name, (changes, at_s) in TROUBLE.items()]
        cases.append(case({}, dict.fromkeys(TROUBLE, False), at_s=WELL_S))
        file = tmp_path / "alerts.yml"
        file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "3s", "tests": cases}))
        done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def case(changes: dict[str, str], firing: dict[str, bool], *, at_s: int) -> dict[str, Any]:
    """Figures as they are when all is well, but for the changes; at a time, these alerts fire, or do not."""
    steps = at_s // 3 + 2
    series = [{"series": name, "values": _values(value, steps)} for name, value in (WELL | changes).items()]
    tests = [
        {
            "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
            "eval_time": f"{at_s}s",
            "exp_samples": [{"labels": "{}", "value": int(fires)}],
        }
        for alert, fires in firing.items()
    ]
    return {"name": ", ".join(changes) or "well", "interval": "3s", "input_series": series, "promql_expr_test": tests}


def _values(value: str, steps: int) -> str:
    return f"{value}x{steps}" if "+" in value else f"{value}+0x{steps}"
