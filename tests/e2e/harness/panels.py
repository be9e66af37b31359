"""Draws a Grafana dashboard's panels from a Prometheus, by matplotlib: what each shows, not how Grafana draws it."""

import datetime
import re

COLUMNS = 24
UNITS = {"percentunit": lambda value: f"{value:.0%}", "currencyUSD": lambda value: f"${value:,.2f}", "reqps": lambda value: f"{value:.1f}/s",
         "short": lambda value: f"{value:,.0f}"}


def draw(panels, prometheus, path, start, end, window):
    """Writes a PNG of all panels with what they showed from `start` to `end`, in seconds since 1970; rates are of `window`."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    # All panels are of one height.
    rows = max(panel["gridPos"]["y"] // panel["gridPos"]["h"] for panel in panels) + 1
    figure = pyplot.figure(figsize=(16, 2.6 * rows))
    grid = figure.add_gridspec(rows, COLUMNS, left=0.06, right=0.99, top=0.97, bottom=0.03, hspace=0.35, wspace=3)
    for panel in panels:
        at = panel["gridPos"]
        axes = figure.add_subplot(grid[at["y"] // at["h"], at["x"]:at["x"] + at["w"]])
        axes.set_title(panel["title"], loc="left", fontsize=10)
        unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        rows_of = [row for target in panel["targets"] for row in answered(prometheus, target, start, end, window)]
        DRAWN[panel["type"]](axes, rows_of, unit)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def answered(prometheus, target, start, end, window):
    """[(legend, [(time, value)])]; one value where the panel asks for the present alone."""
    query = target["expr"].replace("$tenant", ".+").replace("$__rate_interval", window)
    rows = prometheus.range(query, start, end) if target["range"] else [(labels, [(end, value)]) for labels, value in prometheus.query(query)]
    return sorted((legend(target["legendFormat"], labels), values) for labels, values in rows)


def legend(form, labels):
    """As Grafana fills it in; without a form, the labels' values."""
    filled = re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), form).strip()
    return filled or " ".join(value for name, value in sorted(labels.items()) if name not in ("__name__", "instance", "job"))


def lines(axes, rows, unit):
    from matplotlib import dates
    for name, values in rows:
        axes.plot([datetime.datetime.fromtimestamp(time, datetime.timezone.utc) for time, _ in values], [value for _, value in values], label=name)
    axes.set_ylim(bottom=0, top=1.3 * max([1e-9, *(value for _, values in rows for _, value in values)]))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=5))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
    axes.yaxis.set_major_formatter(lambda value, _: unit(value))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if rows:
        axes.legend(fontsize=7, loc="upper right", ncols=2)
    else:
        nothing(axes)


def bars(axes, rows, unit):
    names, shares = [name for name, _ in rows], [values[-1][1] for _, values in rows]
    bars = axes.barh(names, shares, color=["#c33" if share < 0.2 else "#c83" if share < 0.5 else "#383" for share in shares])
    axes.bar_label(bars, [unit(share) for share in shares], padding=3, fontsize=8)
    axes.set_xlim(0, 1.1)
    axes.xaxis.set_major_formatter(lambda value, _: unit(value))
    axes.tick_params(labelsize=8)


def table(axes, rows, unit):
    axes.axis("off")
    if not rows:
        return nothing(axes)
    shown = axes.table([[name, unit(values[-1][1])] for name, values in rows], cellLoc="left", loc="upper left", edges="horizontal")
    shown.auto_set_font_size(False)
    shown.set_fontsize(9)


def number(axes, rows, unit):
    axes.axis("off")
    for at, (name, values) in enumerate(rows):
        axes.text(0.5, 0.55 - 0.3 * at, unit(values[-1][1]), ha="center", va="center", fontsize=24)
        axes.text(0.5, 0.3 - 0.3 * at, name, ha="center", va="center", fontsize=9)


def nothing(axes):
    axes.text(0.5, 0.5, "No data", ha="center", va="center", color="#777", transform=axes.transAxes)


DRAWN = {"timeseries": lines, "bargauge": bars, "table": table, "stat": number}
