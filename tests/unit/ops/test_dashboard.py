"""The shipped dashboard is whole: panels lie side by side, ask the provisioned source, and for metrics that exist."""

from __future__ import annotations

import copy
import enum
import itertools
import json
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from contracts.metrics import declared
from tests.prometheus import DASHBOARD, DEPLOY, questions

BOARD = json.loads(DASHBOARD.read_text())
PANELS = BOARD["panels"]
GONE = object()
OF_THE_SOURCE = {".annotations.list[].titleFormat"}  # which Prometheus' data source reads


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


def test_grafana_knows_every_field_of_it_and_every_choice():
    """By the types that Grafana publishes: what they read and write again is all that the file says.

    A panel's options and its queries are typed, too, by the panel's kind and the data source.
    """
    plugins.register_default_plugins()
    read = Dashboard.from_json(BOARD)
    assert sorted(set(lost(BOARD, json.loads(JSONEncoder().encode(read))))) == sorted(OF_THE_SOURCE)
    assert list(wrong_choices(read)) == []


@pytest.mark.parametrize(
    ("of", "name", "value"),
    [
        (lambda panel: panel, "descriptoin", "how many"),
        (lambda panel: panel["options"]["legend"], "showlegend", True),
        (lambda panel: panel["fieldConfig"]["defaults"], "units", "s"),
        (lambda panel: panel["fieldConfig"]["defaults"]["custom"], "drawStyle", "wavy"),
        (lambda panel: panel["targets"][0], "expression", "up"),
    ],
)
def test_a_field_or_a_choice_that_grafana_does_not_know_is_found(
    of: Callable[[dict[str, Any]], dict[str, Any]], name: str, value: Any
):
    """Which Grafana itself passes over in silence."""
    plugins.register_default_plugins()
    board = copy.deepcopy(BOARD)
    panel = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    of(panel)[name] = value
    read = Dashboard.from_json(board)
    (found,) = {*lost(board, json.loads(JSONEncoder().encode(read))), *wrong_choices(read)} - OF_THE_SOURCE
    assert name in found or repr(value) in found


def lost(said: Any, known: Any, path: str = "") -> Iterator[str]:
    """Where the file says something that is gone, or another, when Grafana's types have read it."""
    if isinstance(said, dict) and isinstance(known, dict):
        for name, value in said.items():
            yield from lost(value, known.get(name, GONE), f"{path}.{name}")
    elif isinstance(said, list) and isinstance(known, list) and len(said) == len(known):
        for one, other in zip(said, known, strict=True):
            yield from lost(one, other, f"{path}[]")
    elif said != known:
        yield path


def wrong_choices(read: Any) -> Iterator[str]:
    """Values of an enumeration that are none of it, anywhere below."""
    if isinstance(read, list | tuple):
        for each in read:
            yield from wrong_choices(each)
    elif isinstance(read, dict):
        yield from wrong_choices(list(read.values()))
    elif type(read).__module__.startswith("grafana_foundation_sdk.models."):
        for name, hint in typing.get_type_hints(type(read)).items():
            value = getattr(read, name, None)
            yield from wrong_choices(value)
            for kind in (hint, *typing.get_args(hint)):
                if isinstance(kind, enum.EnumType) and value is not None and value not in set(kind):
                    yield f"{type(read).__name__}.{name} is {value!r}, none of {kind.__name__}"


def test_it_speaks_of_metrics_that_exist():
    """Ours, the processes' own, and what the rules record."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "retold.rules.yml").read_text())["groups"]
    known = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    for metric in declared.every():
        known |= {metric.name, *(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))}
    for panel, expression in questions():
        used = re.findall(r"\b(?:retold|jetstream|gnatsd)[a-z0-9_:]+", re.sub(r'"[^"]*"', "", expression))
        assert set(used) <= known, panel
