"""What a task tells the next ones: its return value, and the events of its assets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.sdk import Context


def import_result(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a membership run's report says, small and without identifiers."""
    waterfall = report["waterfall"]
    return {
        "run_id": report["run_id"],
        "adds": waterfall["adds"],
        "removes": waterfall["removes"],
        "acknowledged": waterfall["acknowledged"],
        "rejected": sum(waterfall["rejected"].values()),
        "requests": report["requests"]["requests"],
        "size": report["size"],
        "report_uri": report["report_uri"],
        "waterfall": waterfall,
    }


def asset_of(system: str, kind: str, name: str) -> Asset:
    """Return the asset of something in one of the two systems.

    :param system: ``braze`` or ``heap``.
    :param kind: ``cohort``, ``attribute``, ``segment``, ``property`` or ``events``.
    """
    return Asset(name=f"{system} {kind} {name}", uri=f"{system}://{kind}/{quote(name, safe='')}")


def update_assets(context: Context, outlets: Iterable[Any], asset: Asset, extra: Mapping[str, Any]) -> None:
    """Put an extra into the asset's event: for an outlet that is this asset, and for every alias."""
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(asset, extra=dict(extra))
        elif isinstance(outlet, Asset) and outlet.uri == asset.uri:
            context["outlet_events"][outlet].extra.update(extra)
