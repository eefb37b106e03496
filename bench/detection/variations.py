"""What each term is worth, and what each constant is: the job's own formula with one thing changed.

    python -m detection.variations --cache DIR [--seeds N,N] [--only ablation|sensitivity]

Run from bench/. Organisations are those `detection.engine` has played; a variation judges their days
once more, from what was known before them. An ablation takes a term out of every finding, a sensitivity run
halves and doubles a constant.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from figures import put
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from raretrail.baseline import nearest
from raretrail.baseline import uses as uses_room
from raretrail.baseline.history import History
from raretrail.detect import candidates, incidents, surprise
from raretrail.detect.candidates import where_bits, with_bits
from raretrail.detect.incidents import with_incident_id
from raretrail.detect.sensitivity import HIGHEST
from raretrail.session import close_session, open_session
from raretrail.settings import Settings
from raretrail.stages.baseline import known_uses
from raretrail.stages.locating import Geo, open_geo
from raretrail.stages.score import Known, Window, judge, known_before
from raretrail.tables import ANOMALIES
from raretrail.warehouse import Warehouse

from .__main__ import SEEDS
from .engine import as_found, formula, play, span_of, to_rows
from .measure import BUDGETS, Measure, averages, measure
from .organisations import Organisation, organisations, shapes

WHERE = ("place", "network", "prefix", "jump")
HOW = ("agent", "hour", "host")
WHAT = ("command", "error")
# The constants of the score, where they live. Shares double to 1 at most.
CONSTANTS: dict[str, tuple[Any, str]] = {
    "CAPS": (surprise, "CAPS"),
    "RATE_PRIOR_DAYS": (surprise, "RATE_PRIOR_DAYS"),
    "ALPHA": (surprise, "ALPHA"),
    "COMMAND_OFFSET_BITS": (surprise, "COMMAND_OFFSET_BITS"),
    "RECENT_WEIGHT": (surprise, "RECENT_WEIGHT"),
    "ROLL_OUT_DAYS": (surprise, "ROLL_OUT_DAYS"),
    "ROLL_OUT_OTHERS": (surprise, "ROLL_OUT_OTHERS"),
    "PLACE_DAYS_FOR_NETWORK": (candidates, "_PLACE_DAYS_FOR_NETWORK"),
    "MATURE_DAYS": (candidates, "_MATURE_DAYS"),
    "OWN_HABIT_DAYS": (candidates, "_OWN_HABIT_DAYS"),
    "HOUR_DAYS": (candidates, "_HOUR_DAYS"),
    "HOST_BITS": (candidates, "_HOST_BITS"),
    "BURST_BITS": (incidents, "_BURST_BITS"),
    "HOME_BITS": (incidents, "_HOME_BITS"),
    "SETTLED_DAYS": (candidates, "_SETTLED_DAYS"),
    "CADENCE_DAYS": (surprise, "CADENCE_DAYS"),
    "JUMP_KM_PER_HOUR": (uses_room, "JUMP_KM_PER_HOUR"),
    "AREA_DEGREES": (uses_room, "AREA_DEGREES"),
    "MOST_RADIUS_KM": (nearest, "MOST_RADIUS_KM"),
    "USUAL_RADIUS_KM": (nearest, "USUAL_RADIUS_KM"),
    "near_km": ("baseline", "near_km"),
    "incident_gap": ("score", "incident_gap"),
}


# Guards that a constant multiplied so turns off.
OFF = {"roll-outs": ("ROLL_OUT_OTHERS", 1e6), "cadence": ("CADENCE_DAYS", 1e6)}
# What only says how findings become incidents: nothing is judged again for it.
OF_INCIDENTS = {"BURST_BITS", "HOME_BITS", "incident_gap"}


@dataclass
class Played:
    """A played organisation with Spark open on its warehouse, and what was known before its days."""

    organisation: Organisation
    settings: Settings
    warehouse: Warehouse
    known: Known


def main() -> None:
    """Read the options, vary, print."""
    parser = argparse.ArgumentParser(prog="detection.variations", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="where organisations are kept")
    parser.add_argument("--seeds", default="41")
    parser.add_argument("--only", choices=("ablation", "sensitivity"))
    parser.add_argument("--constants", default=",".join(CONSTANTS), help="only these (default: all)")
    parser.add_argument("--people", type=int, default=160)
    parser.add_argument("--into", type=Path, help="a page of the manual to write the tables into")
    options = parser.parse_args()
    seeds = SEEDS.get(options.seeds) or [int(s) for s in options.seeds.split(",")]
    wanted = [replace(shape, people=options.people) for shape in shapes(seeds)]
    ablation: dict[str, list[Measure]] = defaultdict(list)
    sensitivity: dict[str, list[Measure]] = defaultdict(list)
    for organisation in organisations(options.cache, wanted):
        _, settings = play(organisation, options.cache)
        spark = open_session(driver_memory=settings.spark.driver_memory)
        try:
            played = _opened(organisation, settings, spark)
            if options.only != "sensitivity":
                for name, found in ablated(played):
                    ablation[name].append(found)
            if options.only != "ablation":
                for name, found in varied(played, options.constants.split(",")):
                    sensitivity[name].append(found)
        finally:
            close_session(spark)
    for name, measures in (("ablation", ablation), ("sensitivity", sensitivity)):
        if measures:
            many = "" if len(seeds) == 1 else "s"
            which = ", ".join(map(str, seeds))
            text = f"{len(seeds)} organisation{many} (seed{many} {which}).\n\n{table(measures)}"
            print(f"{name}\n\n{text}\n")
            if options.into:
                put(options.into, name, text)


def _opened(organisation: Organisation, settings: Settings, spark: SparkSession) -> Played:
    assert settings.warehouse
    warehouse = Warehouse(spark, settings.warehouse)
    geo = open_geo(settings.geo)
    return Played(organisation, settings, warehouse, _known(warehouse, geo, organisation))


def _known(warehouse: Warehouse, geo: Geo, organisation: Organisation, name: str = "varied") -> Known:
    """What was known before the judged days, computed once and stored under that name."""
    start, end = span_of(organisation)
    days = Window(start, end).days
    found = known_before(warehouse, geo, days, known_uses(warehouse, geo, days[0], end.date()))
    parts = {f.name: getattr(found.history, f.name) for f in fields(History)}
    staged = {part: warehouse.stage(f"{name}_{part}", rows) for part, rows in parts.items()}
    return Known(History(**staged), warehouse.stage(f"{name}_places", found.places), stored=False)


def ablated(played: Played) -> Iterator[tuple[str, Measure]]:
    """(term left out, measure), the first with every term, from the stored findings."""
    findings = played.warehouse.read(ANOMALIES)
    yield "every term", _measured(played, findings)
    for group in (*[(term,) for term in (*WHERE, *HOW, *WHAT)], WHERE, HOW, WHAT):
        name = {WHERE: "where", HOW: "how", WHAT: "what"}.get(group, group[0])
        yield f"without {name}", _measured(played, _without(findings, group))
    mature = findings.withColumn("maturity", F.lit(1.0)).transform(with_bits)
    yield "without maturity", _measured(played, mature)
    yield "without settled ranges", _measured(played, findings.withColumn("settled_range", F.lit(False)))
    spared = F.coalesce("place_spared_bits", F.lit(0.0))
    charged = findings.withColumn("place_bits", F.round(F.col("place_bits") + spared, 6))
    yield "without near, vague and common areas", _measured(played, charged.transform(_without, ()))
    # What `with_terms` adds to a command for what it can do, taken off again.
    raised, level = F.col("command_bits"), F.col("sensitivity")
    plain = F.when(raised - level / 2 >= HIGHEST, raised - level / 2).otherwise(
        raised / (1 + level / (2 * HIGHEST))
    )
    bare = findings.withColumn("command_bits", F.round(plain, 6)).transform(_without, ())
    yield "without sensitivity", _measured(played, bare)
    for guard, (constant, factor) in OFF.items():
        yield f"without {guard}", _varied(played, constant, factor)


def _without(findings: DataFrame, terms: tuple[str, ...]) -> DataFrame:
    rows = findings.withColumns({f"{term}_bits": F.lit(0.0) for term in terms})
    sums = {
        "where_bits": where_bits("place_bits", "network_bits", "prefix_bits", "jump_bits"),
        "how_bits": F.round(F.col("agent_bits") + F.col("hour_bits") + F.col("host_bits"), 6),
        "what_bits": F.greatest("command_bits", "error_bits", F.coalesce("spike_bits", F.lit(0.0))),
    }
    return rows.withColumns(sums).transform(with_bits)


def varied(played: Played, constants: Sequence[str]) -> Iterator[tuple[str, Measure]]:
    """(constant and factor, measure), the first as it is: every judged day scored once more.

    What was measured before under the same formula is kept beside the warehouse, so that a run that was
    stopped goes on where it was.
    """
    kept = Path(str(played.settings.warehouse)).parent / "varied.pickle"
    known: dict[tuple[str, str], Measure] = pickle.loads(kept.read_bytes()) if kept.exists() else {}
    factors = [(name, factor) for name in constants for factor in (0.5, 2.0)]
    for name, factor in (("", 1.0), *factors):
        said = f"{name} {'halved' if factor < 1 else 'doubled'}" if name else "as it is"
        key = (said, formula())
        if key not in known:
            start = time.perf_counter()
            known[key] = _varied(played, name, factor)
            kept.write_bytes(pickle.dumps(known))
            found = known[key]
            print(f"{played.organisation.name}: {said} {found.recall[1]:.2f} {found.recall[2]:.2f} "
                  f"{found.month:.2f}, {time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
        yield said, known[key]


def _varied(played: Played, name: str, factor: float) -> Measure:
    if name in OF_INCIDENTS:
        with _changed(played, name, factor) as changed:
            return _chained(changed, played.warehouse.read(ANOMALIES))
    if not name:
        return _judged(played)
    with _changed(played, name, factor) as changed:
        return _judged(changed)


def _judged(played: Played) -> Measure:
    start, end = span_of(played.organisation)
    geo = open_geo(played.settings.geo)
    window = Window(start, end)
    findings = judge(played.warehouse, played.settings, geo, window, "variation", played.known)
    return _chained(played, played.warehouse.stage("findings", findings))


def _chained(played: Played, findings: DataFrame) -> Measure:
    chained = with_incident_id(findings, played.settings.score.incident_gap)
    return _measured(played, played.warehouse.stage("varied", chained))


def _measured(played: Played, findings: DataFrame) -> Measure:
    rows = to_rows(played.warehouse, Window(*span_of(played.organisation)), findings)
    return measure(played.organisation, *as_found(played.organisation, rows))


@contextlib.contextmanager
def _changed(played: Played, name: str, factor: float) -> Iterator[Played]:
    room, constant = CONSTANTS[name]
    if isinstance(room, str):
        part = getattr(played.settings, room)
        value = getattr(part, constant) * factor
        part = part.model_copy(update={constant: value})
        yield replace(played, settings=played.settings.model_copy(update={room: part}))
        return
    usual = getattr(room, constant)
    setattr(room, constant, _times(usual, factor))
    try:
        if room is uses_room:  # what it says lies in what was known
            geo = open_geo(played.settings.geo)
            yield replace(played, known=_known(played.warehouse, geo, played.organisation, "changed"))
        else:
            yield played
    finally:
        setattr(room, constant, usual)


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {key: _times(one, factor) for key, one in value.items()}
    if isinstance(value, int):
        return max(1, round(value * factor))
    return min(value * factor, 1.0) if value < 1 else value * factor


def table(measures: dict[str, list[Measure]]) -> str:
    """Averages over the organisations as Markdown, and how far each is from the first row."""
    lines = [
        "| | " + " | ".join(f"recall @{b}" for b in BUDGETS) + " | G@30 | change @1 |",
        "|---|" + "---|" * (len(BUDGETS) + 2),
    ]
    usual: float | None = None
    for name, each in measures.items():
        figures = averages(each)
        usual = figures[0] if usual is None else usual
        cells = " | ".join(f"{x:.3f}" for x in figures)
        lines.append(f"| {name} | {cells} | {figures[0] - usual:+.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
