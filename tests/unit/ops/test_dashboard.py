"""The shipped dashboard is whole: panels lie side by side, ask the provisioned source, and for metrics that exist."""

from __future__ import annotations

import itertools
import json
import re

import yaml

from contracts.metrics import declared
from tests.prometheus import DASHBOARD, DEPLOY, questions

BOARD = json.loads(DASHBOARD.read_text())
PANELS = BOARD["panels"]


def test_panels_lie_side_by_side():
    """None upon another, none beyond the right edge."""
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_panel_asks_the_provisioned_source_and_says_what_it_shows():
    """By its uid; a panel without a description is a riddle at night."""
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    asked = {target["datasource"]["uid"] for panel in PANELS for target in panel.get("targets", ())}
    assert asked == {source["uid"]}
    assert all(panel.get("description") for panel in PANELS if panel["type"] != "row")
    (provider,) = yaml.safe_load((folder / "dashboards" / "retold.yml").read_text())["providers"]
    assert provider["type"] == "file"


def test_it_speaks_of_metrics_that_exist():
    """Ours, the processes' own, and what the rules record."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "retold.rules.yml").read_text())["groups"]
    known = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    for metric in declared.every():
        known |= {metric.name, *(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))}
    for panel, expression in questions():
        used = re.findall(r"\b(?:retold|jetstream|gnatsd)[a-z0-9_:]+", re.sub(r'"[^"]*"', "", expression))
        assert set(used) <= known, panel
