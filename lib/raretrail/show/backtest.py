"""A backtest on the screen, as one JSON object, and as rows of CSV. All three tell the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raretrail.backtest import MALICIOUS, Backtest, Band, Cause, Causes, Level
from raretrail.show.text import (
    SEVERITY_STYLES,
    Screen,
    count,
    cut,
    cut_middle,
    inert,
    number,
    render,
    styled,
)

# From here on a threshold's row has room for every column and a bar.
_WIDE = 76
_LONGEST_BAR, _SHORTEST_BAR = 30, 5
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_TITLES = {
    "actor": "Who",
    "detector": "Found by",
    "place": "From where",
    "network": "On which network",
    "command": "Which command",
}
# Kinds of which an incident can have several.
_SEVERAL = ("detector", "network", "command")
CSV_COLUMNS = (
    "part", "name", "value", "score", "promised_a_day", "a_day", "most", "most_day", "days_without",
    "incidents", "suppressed", "share", "alone", "with_verdict", "malicious", "takes_bits", "least_bits",
    "most_bits",
)  # fmt: skip

Column = tuple[str, Literal["left", "right"], Sequence[Text]]


# ------------------------------------------------------------------------------------------------ text


def backtest_text(found: Backtest, screen: Screen) -> str:
    """The whole answer: thresholds, what causes the incidents of one, verdicts, severities, a budget."""
    return render(list(_parts(found, screen)), screen)


def _parts(found: Backtest, screen: Screen) -> Iterator[RenderableType]:
    yield from _period(found)
    yield ""
    yield Text("Incidents a day from a score on", style="bold")
    yield _thresholds(found, screen)
    yield from _legend(found)
    yield ""
    yield from _chosen(found, screen)
    yield Text("Severities", style="bold")
    yield _bands(found.bands, screen)
    yield styled("takes: bits that reach the score on the newest day; had: bits of its incidents", "dim")
    yield ""
    yield from _budget(found)


def _period(found: Backtest) -> Iterator[Text]:
    every = found.every
    line = f"{_span(found.days[0], found.days[-1])}: {count(len(found.days), 'judged day')}, "
    line += f"{count(every.incidents, 'incident')} ({every.a_day:.2f} a day)"
    yield Text(line + (f", {every.suppressed:,} more suppressed" if every.suppressed else ""), style="bold")
    if not found.by_runs:
        yield styled("no run on record says which days were judged: days with incidents are taken", "yellow")
    if found.until:
        yield styled(f"the last day was judged until {found.until:%H:%M} UTC", "dim")
    if found.left_out:
        one = found.left_out == 1
        yield styled(
            f"{count(found.left_out, 'incident')} of days that no good run judged "
            f"{'is' if one else 'are'} left out",
            "dim",
        )


def _span(first: date, last: date) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _thresholds(found: Backtest, screen: Screen) -> Table:
    levels = found.levels
    wide = screen.width >= _WIDE
    styles = ["bold" if level.score in (found.configured, found.chosen.score) else "" for level in levels]

    def column(title: str, cells: Sequence[str]) -> Column:
        return title, "right", [styled(cell, style) for cell, style in zip(cells, styles, strict=True)]

    columns = [
        column("score", [_mark(level, found) + f"{level.score:g}" for level in levels]),
        column("promised", [_rate(level.promised) for level in levels]),
        column("came", [_rate(level.a_day) for level in levels]),
        column("most", [f"{level.most:,}" for level in levels]),
        column("none", [f"{level.days_without:,}" for level in levels]),
    ]
    if wide:
        columns.append(column("total", [f"{level.incidents:,}" for level in levels]))
    columns.append(column("suppressed" if wide else "supp.", [f"{level.suppressed:,}" for level in levels]))
    if wide and any(level.verdicts for level in levels):
        columns.append(
            column("malicious", [f"{_malicious(level)} of {level.with_verdict}" for level in levels])
        )
    return _aligned(columns, [level.a_day for level in levels], screen, gap=2 if wide else 1)


def _mark(level: Level, found: Backtest) -> str:
    if level.score == found.configured:
        return "> "
    return "* " if level.score == found.chosen.score else ""


def _legend(found: Backtest) -> Iterator[Text]:
    told = "promised: (100 - score) / score; came: mean; most: on a day; none: days without"
    if any(level.verdicts for level in found.levels):
        told += "; malicious: of those with a verdict"
    yield styled(told, "dim")
    if found.every.suppressed:
        yield styled("suppressed ones count for the promise and the verdicts, in no other column", "dim")
    marks = "> alerts.min_score"
    yield styled(marks + ("; * --min-score" if found.chosen.score != found.configured else ""), "dim")


def _chosen(found: Backtest, screen: Screen) -> Iterator[RenderableType]:
    level = found.chosen
    of = "alerts.min_score" if level.score == found.configured else "--min-score"
    line = f"At {level.score:g} ({of}): {count(level.incidents, 'incident')}, {level.a_day:.2f} a day"
    yield Text(line, style="bold")
    if level.most_day is not None:
        yield styled(f"most on one day: {level.most:,} ({level.most_day})")
        yield from _strip(found, screen)
        yield ""
        for kind, causes in found.causes.items():
            if causes.top:
                yield from _causes(kind, causes, screen)
                yield ""
    else:
        yield ""
    yield _verdicts(level)
    yield ""


def _strip(found: Backtest, screen: Screen) -> Iterator[Text]:
    """A sign a day, in lines of whole weeks: its incidents up to 9, then +."""
    counts = dict(zip(found.days, found.by_day, strict=True))
    first, last = found.days[0], found.days[-1]
    signs = [
        "_" if number is None else "." if not number else f"{number}" if number < 10 else "+"
        for number in (counts.get(first + timedelta(days=n)) for n in range((last - first).days + 1))
    ]
    long = max(7, min(63, screen.width - 12) // 7 * 7)
    for begin in range(0, len(signs), long):
        yield Text(f"{first + timedelta(days=begin)}  {''.join(signs[begin : begin + long])}")
    told = ["a sign a day"]
    for sign, means in ((".", "none"), ("+", "more than 9"), ("_", "not judged")):
        if sign in signs:
            told.append(f"{sign} {means}")
    yield styled(": ".join([told[0], ", ".join(told[1:])]) if told[1:] else told[0], "dim")


def _causes(kind: str, causes: Causes, screen: Screen) -> Iterator[RenderableType]:
    """Those in several incidents a row each, those in one together on a line."""
    several = [cause for cause in causes.top if cause.incidents > 1]
    once = [cause for cause in causes.top if cause.incidents == 1]
    further = causes.total - len(causes.top)
    more = f"and {further:,} more" if further else ""
    title = _TITLES[kind]
    if not several:
        yield Text(f"{title}, one incident each", style="bold")
    else:
        yield _cause_table(title, kind, several, screen)
    if once:
        room = max(12, screen.width - 8)
        # Names of places have commas of their own.
        names = "; ".join(_shorten(kind, cause.name, room) for cause in once)
        yield _hanging("" if not several else "once: ", f"{names}; {more}" if more else names)
    elif more:
        yield styled(more, "dim")


def _cause_table(title: str, kind: str, causes: Sequence[Cause], screen: Screen) -> Table:
    numbers = {
        "incidents": [f"{cause.incidents:,}" for cause in causes],
        "share": [f"{cause.share:.0%}" for cause in causes],
    }
    if kind in _SEVERAL and screen.width >= _WIDE:
        numbers["alone"] = [f"{cause.alone:,}" for cause in causes]
    taken = sum(2 + max(len(name), *map(len, cells)) for name, cells in numbers.items())
    room = min(60, screen.width - taken)
    columns: list[Column] = [(title, "left", [Text(_shorten(kind, cause.name, room)) for cause in causes])]
    columns += [(name, "right", [Text(cell) for cell in cells]) for name, cells in numbers.items()]
    return _aligned(columns, [cause.share for cause in causes], screen, whole=1.0)


def _shorten(kind: str, name: str, width: int) -> str:
    """The name in so many cells; what tells names of commands, detectors and people apart is their ends."""
    return (cut if kind in ("place", "network") else cut_middle)(inert(name), width)


def _hanging(label: str, text: str) -> RenderableType:
    if not label:
        return styled(text)
    grid = Table.grid(padding=0)
    grid.add_column(width=len(label), no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(styled(label, "dim"), styled(text))
    return grid


def _verdicts(level: Level) -> Text:
    told = Text("Verdicts", style="bold")
    if level.precision is None:
        return told.append(": none yet; `raretrail verdict` gives them", style="not bold")
    total = level.incidents + level.suppressed
    each = ", ".join(f"{times:,} {inert(name)}" for name, times in level.verdicts.items())
    suppressed = ", suppressed ones too" if level.suppressed else ""
    text = f" on {level.with_verdict:,} of {total:,}{suppressed}: {each}; precision {level.precision:.0%}"
    return told.append(text, style="not bold")


def _bands(bands: Sequence[Band], screen: Screen) -> Table:
    wide = screen.width >= _WIDE

    def column(title: str, cells: Sequence[str]) -> Column:
        return title, "right", [Text(cell) for cell in cells]

    columns: list[Column] = [
        ("severity", "left", [styled(b.severity, SEVERITY_STYLES.get(b.severity, "")) for b in bands]),
        column("score", [f"{band.score:g}" if band.severity != "low" else "under" for band in bands]),
        column("takes", [_takes(band) for band in bands]),
        column("had", [_had(band) for band in bands]),
    ]
    if wide:
        columns.append(column("promised", [_rate(band.promised) for band in bands]))
    columns.append(column("came", [_rate(band.a_day) for band in bands]))
    if wide:
        columns.append(column("most", [f"{band.most:,}" for band in bands]))
        columns.append(column("total", [f"{band.incidents:,}" for band in bands]))
        columns.append(column("suppressed", [f"{band.suppressed:,}" for band in bands]))
    return _aligned(columns, [band.a_day for band in bands], screen, gap=2 if wide else 1)


def _takes(band: Band) -> str:
    if band.severity == "low":
        return ""
    return number(band.takes_bits) or "-"


def _had(band: Band) -> str:
    if band.least_bits is None or band.most_bits is None:
        return "-"
    least, most = number(band.least_bits), number(band.most_bits)
    return least if least == most else f"{least}-{most}"


def _budget(found: Backtest) -> Iterator[RenderableType]:
    budget = found.budget
    days = len(found.days)
    yield Text(f"For {budget.per_day:g} a day", style="bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("promised by", f"{budget.promising:g}", "")
    for label, score, kept in (
        ("kept on average by", budget.on_average, budget.on_average_incidents),
        ("kept on every day by", budget.on_every_day, budget.on_every_day_incidents),
    ):
        told = f"{count(kept, 'incident')} in {count(days, 'day')}, {kept / days:.2f} a day"
        table.add_row(label, "none" if score is None else f"{score:g}", "" if score is None else told)
    yield table


def _aligned(
    columns: Sequence[Column],
    drawn: Sequence[float],
    screen: Screen,
    *,
    gap: int = 2,
    whole: float | None = None,
) -> Table:
    """The columns, and a bar for each row where there is room for one. whole is what the longest bar
    stands for, the greatest drawn if not given."""
    widths = [max(len(title), *(cell.cell_len for cell in cells)) for title, _, cells in columns]
    room = screen.width - sum(widths) - gap * len(widths)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for (title, justify, _), width in zip(columns, widths, strict=True):
        table.add_column(title, justify=justify, width=width, no_wrap=True)
    bars = [Text()] * len(drawn)
    if room >= _SHORTEST_BAR:
        table.add_column("", no_wrap=True)
        longest = min(room, _LONGEST_BAR)
        most = whole or max(drawn, default=0.0) or 1.0
        bars = [Text(bar(value / most, longest), style="cyan") for value in drawn]
    for n, one in enumerate(bars):
        table.add_row(*[cells[n] for _, _, cells in columns], *([one] if room >= _SHORTEST_BAR else []))
    return table


def bar(part: float, longest: int) -> str:
    """A bar of a part (0 to 1) of so many cells, to an eighth of a cell; whatever is above 0 shows."""
    eighths = round(min(max(part, 0.0), 1.0) * longest * 8)
    if part > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _malicious(level: Level) -> int:
    return level.verdicts.get(MALICIOUS, 0)


# -------------------------------------------------------------------------------------------- programs


def backtest_json(found: Backtest) -> dict[str, Any]:
    """The same as one object; rates are a judged day, shares 0 to 1."""
    budget = found.budget
    return {
        "first_day": found.days[0],
        "last_day": found.days[-1],
        "judged_days": len(found.days),
        "judged_by": "runs" if found.by_runs else "incidents",
        "judged_until": found.until,
        "incidents": found.every.incidents,
        "a_day": _round(found.every.a_day),
        "suppressed": found.every.suppressed,
        "left_out": found.left_out,
        "alerts_min_score": found.configured,
        "min_score": found.chosen.score,
        "thresholds": [_level(level) for level in found.levels],
        "days": [
            {"day": day, "incidents": times} for day, times in zip(found.days, found.by_day, strict=True)
        ],
        "causes": {
            kind: {"total": causes.total, "top": [_cause(kind, cause) for cause in causes.top]}
            for kind, causes in found.causes.items()
        },
        "verdicts": dict(found.chosen.verdicts),
        "precision": _round(found.chosen.precision),
        "severities": [_band(band) for band in found.bands],
        "budget": {
            "per_day": budget.per_day,
            "promising": budget.promising,
            "on_average": budget.on_average,
            "on_average_incidents": budget.on_average_incidents,
            "on_every_day": budget.on_every_day,
            "on_every_day_incidents": budget.on_every_day_incidents,
        },
    }


def _level(level: Level) -> dict[str, Any]:
    return {
        "score": level.score,
        "promised_a_day": _round(level.promised),
        "a_day": _round(level.a_day),
        "most": level.most,
        "most_day": level.most_day,
        "days_without": level.days_without,
        "incidents": level.incidents,
        "suppressed": level.suppressed,
        "with_verdict": level.with_verdict,
        "malicious": _malicious(level),
    }


def _cause(kind: str, cause: Cause) -> dict[str, Any]:
    told = {"value": cause.value, "name": cause.name, "incidents": cause.incidents}
    told["share"] = _round(cause.share)
    return told | ({"alone": cause.alone} if kind in _SEVERAL else {})


def _band(band: Band) -> dict[str, Any]:
    return {
        "severity": band.severity,
        "score": band.score,
        "takes_bits": band.takes_bits,
        "least_bits": _round(band.least_bits),
        "most_bits": _round(band.most_bits),
        "promised_a_day": _round(band.promised),
        "a_day": _round(band.a_day),
        "most": band.most,
        "incidents": band.incidents,
        "suppressed": band.suppressed,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def backtest_rows(found: Backtest) -> Iterator[Mapping[str, Any]]:
    """The same as rows of CSV_COLUMNS; `part` says what a row is of."""
    page = backtest_json(found)
    empty = dict.fromkeys(CSV_COLUMNS)

    def row(part: str, name: str, **more: Any) -> dict[str, Any]:
        return {**empty, "part": part, "name": name, **more}

    whole = {key: page[key] for key in ("incidents", "a_day", "suppressed")}
    yield row("period", _span(found.days[0], found.days[-1]), **whole)
    for name in ("judged_days", "judged_by", "judged_until", "left_out"):
        yield row("period", name, value=page[name])
    named = {found.chosen.score: "min_score"} | {found.configured: "alerts.min_score"}
    for level in page["thresholds"]:
        yield row("threshold", named.get(level["score"], ""), **level)
    for one in page["days"]:
        yield row("day", str(one["day"]), incidents=one["incidents"])
    for kind, causes in page["causes"].items():
        yield row(kind, "", value=causes["total"])
        for cause in causes["top"]:
            yield row(kind, **cause)
    for verdict, times in page["verdicts"].items():
        yield row("verdict", verdict, incidents=times)
    yield row("verdict", "precision", share=page["precision"])
    for band in page["severities"]:
        yield row("severity", band["severity"], **{k: v for k, v in band.items() if k != "severity"})
    budget = page["budget"]
    yield row("budget", "promising", score=budget["promising"], promised_a_day=budget["per_day"])
    for name in ("on_average", "on_every_day"):
        yield row("budget", name, score=budget[name], incidents=budget[f"{name}_incidents"])
