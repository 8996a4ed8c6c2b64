"""The table on the terminal, as JSON, and as a picture (SVG, made here)."""
import json
from math import log2
from xml.sax.saxutils import escape

# HotWarm against etcd in the same run: the least ratio in its favour that is a pass. A line that is not named has the
# first one; a line with `better` zero must be 0.
TARGET = 1.0
TARGETS = {}

HEADER = f"  {'':<50}{'HotWarm':>12}{'etcd':>12}{'ideal':>12}  {'':<4}{'x etcd':>8}{'x ideal':>9}{'target':>9}  "


def shown(value, places):
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,.{places}f}"


def ratio(ours, theirs, better):
    """Above 1: in HotWarm's favour. None where there is nothing to compare."""
    if not isinstance(ours, (int, float)) or not isinstance(theirs, (int, float)) or ours <= 0 or theirs <= 0:
        return None
    return ours / theirs if better == "more" else theirs / ours


class Table:
    def __init__(self):
        self.lines, self.row = [], ""

    def add(self, name, values, unit, better, places, judged, results):
        ours, etcd, tuned = (values.get(c) for c in ("hotwarm", "etcd", "etcd_tuned"))
        x_etcd, x_ideal = ratio(ours, etcd, better), ratio(ours, values.get("ideal"), better)
        target, verdict = "", ""
        if isinstance(ours, str):
            verdict = ours
        elif better == "zero":
            target, verdict = "0", "met" if ours == 0 else "MISSED"
        elif judged and x_etcd is not None:
            least = TARGETS.get(f"{self.row}:{name.strip()}", TARGET)
            target, verdict = f">={least:g}x", "met" if x_etcd >= least else "missed"
        print(f"  {name:<50}{'-' if isinstance(ours, str) else shown(ours, places):>12}"
              f"{'-' if isinstance(etcd, str) else shown(etcd, places):>12}{shown(values.get('ideal'), places):>12}  "
              f"{unit:<4}{shown(x_etcd, 2):>8}{shown(x_ideal, 2):>9}{target:>9}  {verdict}", flush=True)
        line = {"row": self.row, "name": name.strip(), "unit": unit, "better": better, "values": values,
                "x_etcd": x_etcd, "x_ideal": x_ideal, "target": target, "verdict": verdict, "rounds": results}
        self.lines.append(line)
        if tuned is not None:
            x = ratio(ours, tuned, better)
            print(f"  {'    beside etcd with heartbeat 20, election 200':<50}{'':>12}{shown(tuned, places):>12}{'':>12}  "
                  f"{unit:<4}{shown(x, 2):>8}", flush=True)
            line["x_etcd_tuned"] = x

    def write_json(self, path, about):
        with open(path, "w") as f:
            json.dump({**about, "lines": self.lines}, f, indent=1)

    def write_svg(self, path, title):
        """One bar a line: how many times better than etcd, on a logarithmic scale; right of the middle is better."""
        bars = [(f"{line['row']}: {line['name']}", line["x_etcd"]) for line in self.lines
                if line["x_etcd"] is not None and line["target"]]
        width, left, step, top = 1000, 420, 20, 60
        middle, unit = left + 200, 60  # pixels to the left per doubling
        height = top + step * len(bars) + 20
        out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
               'font-family="sans-serif" font-size="12">', f'<rect width="{width}" height="{height}" fill="white"/>',
               f'<text x="10" y="20" font-size="15">{escape(title)}</text>',
               '<text x="10" y="40" fill="#555">HotWarm over etcd, each step a doubling; green is in HotWarm\'s favour'
               '</text>']
        for doubling in range(-3, 7):
            x = middle + unit * doubling
            out.append(f'<line x1="{x}" y1="{top - 5}" x2="{x}" y2="{height - 15}" '
                       f'stroke="{"#000" if doubling == 0 else "#ddd"}"/>'
                       f'<text x="{x}" y="{height - 3}" text-anchor="middle" fill="#555">{2.0 ** doubling:g}x</text>')
        for i, (name, x_etcd) in enumerate(bars):
            end = middle + unit * max(-3.2, min(6.0, log2(x_etcd)))
            y = top + step * i
            out.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
                       f'<rect x="{min(middle, end):.1f}" y="{y + 2}" width="{abs(end - middle):.1f}" '
                       f'height="{step - 5}" fill="{"#3a9d5d" if x_etcd >= 1 else "#c8503c"}"/>'
                       f'<text x="{max(middle, end) + 5:.1f}" y="{y + 13}">{x_etcd:.2f}</text>')
        with open(path, "w") as f:
            f.write("\n".join(out + ["</svg>"]) + "\n")
