"""The one table, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.results import TARGETS, Spread, Target, spread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.results import Results
    from benchmarks.work import Entry, Metric, Work

Row = Sequence[str]


def key_of(work: Work, entry: Entry) -> tuple[str, str, str]:
    return (work.name, entry.name, entry.transport)


def text(machine: dict[str, str], works: Sequence[Work], results: Results) -> str:
    """The whole table: the machine, each piece of work, the ratios against their targets, and missing servers."""
    parts = [_pairs(machine.items()), f"\nrounds, interleaved: {len(results.rounds)}; median (least to most)\n"]
    for work in works:
        rows = [row for entry in work.entries for row in _rows(work, entry, results)]
        parts.append(_block(work.title, ("", "over", "median", "", "spread"), rows))
    ratios = [row for target in TARGETS if (row := _ratio(target, results))]
    parts.append(_block("ratios, each within its round", ("", "of", "median", "spread", "target", "reached"), ratios))
    if results.failed:
        parts.append("failed\n" + _pairs((" ".join(key), reason) for key, reason in results.failed.items()) + "\n")
    if results.left_out:
        parts.append("left out\n" + _pairs(results.left_out.items()))
    return "\n".join(parts)


def _rows(work: Work, entry: Entry, results: Results) -> list[Row]:
    key = key_of(work, entry)
    if key in results.failed:
        return [(entry.name, entry.transport, "failed", "", "")]
    rows: list[Row] = []
    for metric in work.metrics:
        samples = results.samples(key, metric.key)
        if samples:
            who = (entry.name, entry.transport) if not rows else ("", "")
            rows.append((*who, *_figures(spread(samples), metric)))
    return rows


def _figures(found: Spread, metric: Metric) -> tuple[str, str, str]:
    median, least, most = (
        f"{value * metric.scale:,.{metric.digits}f}" for value in (found.median, found.least, found.most)
    )
    return (median, metric.unit, f"{least} to {most}")


def _ratio(target: Target, results: Results) -> Row | None:
    samples = target.samples(results)
    bound = "" if target.bound is None else f"{'at most' if target.most else 'at least'} {target.bound:g}{target.unit}"
    if not samples:
        failed = (target.work, *target.subject) in results.failed
        return (_subject(target), _rivals(target), "failed", "", bound, "NO") if failed else None
    found = spread(samples)
    reached = "" if target.bound is None else "yes" if target.reached(found.median) else "NO"
    shown = f"{_short(found.median)}{target.unit}"
    return (_subject(target), _rivals(target), shown, f"{_short(found.least)} to {_short(found.most)}", bound, reached)


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 20 else f"{value:.3f}"


def _subject(target: Target) -> str:
    return f"{target.work}: {' '.join(target.subject)}"


def _rivals(target: Target) -> str:
    if len(target.rivals) == 1:
        return " ".join(target.rivals[0])
    names = dict.fromkeys(name for name, _ in target.rivals)
    return f"best of {', '.join(names)}" if names else ""


def _block(title: str, heads: Row, rows: Sequence[Row]) -> str:
    """A small table under a title: text to the left, figures to the right."""
    if not rows:
        return ""
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = heads.index("median")
    aligned = [
        [cell.rjust(widths[i]) if i == numeric else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        for row in (heads, *rows)
    ]
    lines = ["  ".join(cells) for cells in aligned]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([title, lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), ""])


def _pairs(items: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in items)


def document(machine: dict[str, str], works: Sequence[Work], results: Results) -> dict[str, Any]:
    """The same for a program, samples in basic units: frames a second, bytes, seconds; µs where the key says us."""
    measured: list[dict[str, Any]] = []
    for work in works:
        for entry in work.entries:
            key = key_of(work, entry)
            samples = {metric.key: results.samples(key, metric.key) for metric in work.metrics}
            if key in results.failed:
                measured.append({"work": key[0], "who": key[1], "transport": key[2], "failed": results.failed[key]})
            elif any(samples.values()):
                medians = {name: spread(values).median for name, values in samples.items() if values}
                row = {"work": key[0], "who": key[1], "transport": key[2], "median": medians, "samples": samples}
                measured.append(row)
    return {
        "machine": machine,
        "rounds": len(results.rounds),
        "measured": measured,
        "ratios": [found for target in TARGETS if (found := _ratio_document(target, results))],
        "left_out": results.left_out,
    }


def _ratio_document(target: Target, results: Results) -> dict[str, Any] | None:
    samples = target.samples(results)
    if not samples:
        return None
    found = spread(samples)
    return {
        "work": target.work,
        "metric": target.metric,
        "subject": list(target.subject),
        "rivals": [list(rival) for rival in target.rivals],
        "median": found.median,
        "least": found.least,
        "most": found.most,
        "target": target.bound,
        "upper": target.most,
        "reached": None if target.bound is None else target.reached(found.median),
    }
