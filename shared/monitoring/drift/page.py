"""The report of drift as one HTML page: text and plots, without other files and without scripts."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from shared.monitoring.drift.profiles import Bins

_STYLE = """
:root { color-scheme: light dark; --reference: #7a8ba3; --window: #d9822b; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .6rem; }
td { border-top: 1px solid var(--line); font-variant-numeric: tabular-nums; }
section { margin: 2.5rem 0; } h2 { margin: 0; font-size: 1.1rem; } svg { width: 100%; height: auto; }
.reference { fill: var(--reference); } .window { fill: var(--window); } text { fill: currentColor; font-size: 11px; }
.high, .moderate { font-weight: 600; } .key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }
"""
_WIDTH, _HEIGHT, _FOOT = 900, 150, 60  # of a plot, and the room for the names of its bins
_SHOWN = 40  # bins of one plot: the rest is in the table of the JSON report


def render_page(report: Mapping[str, Any], plots: Iterable[tuple[Bins, Sequence[int], Sequence[int]]]) -> str:
    """Return an HTML page of a report with a plot for each feature: its bins, the reference's and the window's rows."""
    by_name = {bins.name: (bins, reference, window) for bins, reference, window in plots}
    measured = [*report["all_features"], *(report[name] for name in ("score", "decision") if report[name])]
    rows = "".join(
        f'<tr class="{each["level"]}"><td><a href="#{number}">{escape(each["feature"])}</a></td>'
        f"<td>{each['level'].replace('_', ' ')}</td><td>{each['psi']:.3f}</td><td>{each['p_value']:.2g}</td>"
        f"<td>{each['missing_delta']:+.1%}</td><td>{each['unseen']}</td></tr>"
        for number, each in enumerate(measured)
    )
    sections = "".join(
        f'<section id="{number}"><h2>{escape(each["feature"])}</h2>{_plot(*by_name[each["feature"]])}</section>'
        for number, each in enumerate(measured)
    )
    title = f"Drift of {report['model']}@{report['version']}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<meta name="viewport" content="width=device-width"><h1>{escape(title)}</h1>'
        f"<p><strong>{report['level'].replace('_', ' ')}</strong>: {escape(report['advice'])}</p>"
        f"<p>{report['n_prod_rows']:,} scored rows beside {report['n_ref_rows']:,} reference rows; written "
        f"{escape(report['generated_at'])}."
        '<span class="key" style="background: var(--reference)"></span>reference'
        '<span class="key" style="background: var(--window)"></span>scored</p>'
        "<table><thead><tr><th>feature<th>level<th>PSI<th>p<th>missing<th>unseen</tr></thead>"
        f"<tbody>{rows}</tbody></table>{sections}</html>\n"
    )


def _plot(bins: Bins, reference: Sequence[int], window: Sequence[int]) -> str:
    shares = [
        (label, before / (sum(reference) or 1), after / (sum(window) or 1))
        for label, before, after in zip(bins.labels, reference or [0] * len(window), window, strict=True)
        if before or after
    ][:_SHOWN]
    if not shares:
        return "<p>No rows.</p>"
    top = max(max(before, after) for _, before, after in shares)
    step = _WIDTH / len(shares)
    parts = []
    for place, (label, before, after) in enumerate(shares):
        left = place * step
        for offset, share, kind in ((0.1, before, "reference"), (0.5, after, "window")):
            height = _HEIGHT * share / top
            parts.append(
                f'<rect class="{kind}" x="{left + offset * step:.1f}" y="{_HEIGHT - height:.1f}" '
                f'width="{0.4 * step:.1f}" height="{height:.1f}"><title>{escape(label)}: {share:.1%}</title></rect>'
            )
        x, y = left + step / 2, _HEIGHT + 12
        turned = f'text-anchor="end" transform="rotate(-30 {x:.1f} {y})"'
        parts.append(f'<text x="{x:.1f}" y="{y}" {turned}>{escape(label[:24])}</text>')
    return f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}">{"".join(parts)}</svg>'
