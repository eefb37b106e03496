"""Findings out of the house: a JSON line each, as the Elastic Common Schema or as OCSF has them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from raretrail.look import Condition, Look
from raretrail.show.text import to_json
from raretrail.views import ECS_ANOMALIES, OCSF_FINDINGS, nested

Format = Literal["ecs", "ocsf"]

# Of each format: the view, and its columns for the first event, the publication, the score and the id.
_VIEWS = {
    "ecs": (ECS_ANOMALIES, "@timestamp", "event.created", "event.risk_score_norm", "event.id"),
    "ocsf": (OCSF_FINDINGS, "start_time", "time", "unmapped.score", "metadata.uid"),
}


def export_lines(
    look: Look,
    format: Format,
    *,
    since: datetime | None = None,
    published_since: datetime | None = None,
    min_score: float | None = None,
) -> Iterator[str]:
    """The findings that meet all conditions, by time, each one line of JSON with its line end.

    since is about a finding's first event, published_since about when it was first published.
    """
    view, first, published, score, key = _VIEWS[format]

    def moment(time: datetime) -> Any:
        # OCSF counts milliseconds, and the view whole seconds of them.
        return time if format == "ecs" else int(time.astimezone(UTC).timestamp()) * 1000

    conditions = []
    if since is not None:
        conditions.append(Condition(first, ">=", moment(since)))
    if published_since is not None:
        conditions.append(Condition(published, ">=", moment(published_since)))
    if min_score is not None:
        conditions.append(Condition(score, ">=", min_score))
    for row in look.rows(view, *conditions, order=((first, "asc"), (key, "asc"))):
        yield to_json(nested(row)) + "\n"
