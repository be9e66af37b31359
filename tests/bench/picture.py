"""The picture: what each variant adds to a request, a panel for each workload."""

from html import escape

PANELS = (("2k", "2 KB"), ("128k", "128 KB"), ("1m", "1 MB"), ("1m-32k", "1 MB, connection buffers of 32 KiB"),
          ("sse", "a stream of 200 events at once"), ("paced", "the same, one event at a time"))
COLUMNS = 3
LABELS, PANEL, GAP = 190, 240, 30   # widths
TOP, TITLE, ROW, BAR = 66, 30, 22, 14   # heights
NUMBER = 62   # width that is kept for the number behind a bar
COLOURS = {"held": "#0b6bcb", "passing": "#0b6bcb", "noop": "#9aa5b1", "calls": "#9aa5b1",
           "before": "#8fbce8", "before-passing": "#8fbce8"}
OTHER, INK, FAINT, FAULT = "#d9a05b", "#1f2933", "#7b8794", "#c0392b"
OURS, PART = COLOURS["held"], COLOURS["noop"]
# What a reader cannot guess: a colour or None, and the words.
NOTES = (
    (OURS, "bursar with all features on: tenant, budget in dollars, token bucket, downgrade, usage, metrics, log fields, headers"),
    (PART, "parts of bursar: a filter that does nothing (no-op), and one that only makes bursar's calls to the proxy"),
    (OTHER, "alternatives, which do less. DOM: bodies parsed into a tree of JSON values. AI gateway: ext_proc and a rate limit service"),
    (None, "A bar is the median of all rounds. The thin line at its end spans the first to the third quartile; the number may cut it off."),
    (None, "Each panel has its own scale. All numbers are CPU µs for a whole request with its body and answer."),
    (FAULT, "413: Envoy refuses the request. This filter wants the whole body at once, and the body is longer than the connection's buffer."),
)
NOTE = 20   # height of a line


def draw(figures, variants, subtitle):
    shown = [variant for variant in variants if variant.name not in (figures.base, "again")]
    lines = []
    for index, (workload, title) in enumerate(PANELS):
        column, row = index % COLUMNS, index // COLUMNS
        x = LABELS + column * (PANEL + GAP)
        y = TOP + row * (TITLE + ROW * len(shown) + GAP)
        lines += panel(figures, shown, workload, title, x, y, with_labels=column == 0)
    rows = -(-len(PANELS) // COLUMNS)
    width, bottom = LABELS + COLUMNS * (PANEL + GAP), TOP + rows * (TITLE + ROW * len(shown) + GAP)
    lines += notes(bottom)
    height = bottom + NOTE * len(NOTES) + 10
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            text(16, 26, "CPU microseconds that a request costs more than in Envoy without a filter", size=16, weight=600),
            text(16, 46, subtitle, colour=FAINT)]
    return "\n".join([*head, *lines, "</svg>"]) + "\n"


def notes(y):
    lines = []
    for number, (colour, words) in enumerate(NOTES):
        top = y + NOTE * number
        if colour:
            lines.append(f'<rect x="16" y="{top}" width="11" height="11" fill="{colour}" rx="2"/>')
        lines.append(text(34, top + 10, words, colour=FAINT))
    return lines


def panel(figures, variants, workload, title, x, y, with_labels):
    found = {variant.name: figures.extra(variant.name, workload) for variant in variants}
    most = max([figure.middle for figure in found.values() if figure] + [1])
    per_unit = (PANEL - NUMBER) / most
    lines = [text(x, y + 14, title, weight=600)]
    lines.append(f'<line x1="{x}" y1="{y + TITLE - 8}" x2="{x}" y2="{y + TITLE + ROW * len(variants) - 4}" stroke="{FAINT}"/>')
    for number, variant in enumerate(variants):
        top = y + TITLE + number * ROW - 4
        if with_labels:
            is_ours = variant.name in ("held", "passing")
            lines.append(text(x - 10, top + BAR - 2, variant.says.replace("*", "").replace("`", ""), anchor="end",
                              weight=600 if is_ours else 400))
        lines += bar(found[variant.name], COLOURS.get(variant.name, OTHER), x, top, per_unit)
    return lines


def bar(figure, colour, x, top, per_unit):
    if figure.failed:
        return [text(x + 6, top + BAR - 2, " ".join(str(status or "cut") for status in sorted(figure.failed)), colour=FAULT, weight=600)]
    if not figure:
        return [text(x + 6, top + BAR - 2, "-", colour=FAINT)]
    width = max(figure.middle, 0) * per_unit
    low, high = (x + max(value, 0) * per_unit for value in (figure.low, figure.high))
    # A quartile may lie far out: the number's place stays free.
    high = min(high, x + PANEL - NUMBER + 4)
    middle = top + BAR / 2
    number = f"{figure.middle:,.0f}" if abs(figure.middle) >= 20 else f"{figure.middle:.1f}"
    return [f'<rect x="{x}" y="{top}" width="{max(width, 1):.1f}" height="{BAR}" fill="{colour}" rx="2"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="{INK}" stroke-opacity="0.55"/>',
            text(max(x + width, high) + 6, top + BAR - 2, number)]


def text(x, y, words, colour=INK, anchor="start", size=12, weight=400):
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">{escape(words)}</text>'
