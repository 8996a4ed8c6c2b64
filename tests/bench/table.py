"""The table on the terminal, as JSON, and as a picture (SVG, made here)."""
import json
from math import log2
from xml.sax.saxutils import escape

# HotWarm against another column of the same run: the least ratio in its favour that is a pass. The key is the row and
# what the line shows; a line that is not named has DEFAULT. A line with `better` zero must be 0.
DEFAULT = {"etcd": 1.0}
TARGETS = {
    "idle:mib": {"etcd": 4},
    "put1:p50_us": {"etcd": 1, "ideal": 0.5},
    "put256:per_second": {"etcd": 5, "ideal": 0.5},
    "put256:p99_us": {"etcd": 4},
    "get:per_second": {"etcd": 8},
    "state:mib": {"etcd": 4},
    "state:save_s": {"etcd": 2},
    "state:rebuild_s": {"etcd": 1.43},
    "kill:first_ack_ms": {"etcd": 15, "etcd_tuned": 3},
    "kill:p99_against_median": {"etcd_tuned": 1},
}
SHORT = {"etcd": "etcd", "ideal": "ideal", "etcd_tuned": "tuned"}

HEADER = (f"  {'':<50}{'HotWarm':>12}{'etcd':>12}{'ideal':>12}  {'':<4}{'x etcd':>8}{'x ideal':>9}  "
          f"{'target':<26}")


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
        self.lines, self.row, self.text = [], "", []

    def add(self, name, key, values, unit, better, places, judged, results):
        """key: what TARGETS calls the line, without its row."""
        ours = values.get("hotwarm")
        ratios = {c: ratio(ours, values.get(c), better) for c in SHORT}
        targets, missed = {}, []
        if isinstance(ours, str):
            verdict = ours
        elif better == "zero":
            targets, missed, verdict = {"": 0}, [] if ours == 0 else ["lost"], "met" if ours == 0 else "MISSED"
        else:
            wanted = TARGETS.get(f"{self.row}:{key}", DEFAULT) if judged else {}
            targets = {c: least for c, least in wanted.items() if ratios[c] is not None}
            missed = [c for c, least in targets.items() if ratios[c] < least]
            verdict = "" if not targets else "missed: " + ", ".join(SHORT[c] for c in missed) if missed else "met"
        text = "0" if better == "zero" else ", ".join(f">={least:g}x {SHORT[c]}" for c, least in targets.items())
        self.out(f"  {name:<50}{self.cell(ours, places)}{self.cell(values.get('etcd'), places)}"
                 f"{self.cell(values.get('ideal'), places)}  {unit:<4}{shown(ratios['etcd'], 2):>8}"
                 f"{shown(ratios['ideal'], 2):>9}  {text:<26}{verdict}")
        if values.get("etcd_tuned") is not None:
            self.out(f"  {'    beside etcd with heartbeat 20, election 200':<50}{'':>12}"
                     f"{self.cell(values['etcd_tuned'], places)}{'':>12}  {unit:<4}{shown(ratios['etcd_tuned'], 2):>8}")
        self.lines.append({"row": self.row, "name": name.strip(), "unit": unit, "better": better, "values": values,
                           "ratios": ratios, "targets": targets, "missed": missed, "verdict": verdict,
                           "rounds": results})

    def out(self, text):
        self.text.append(text.rstrip())
        print(text.rstrip(), flush=True)

    @staticmethod
    def cell(value, places):
        return f"{'-' if isinstance(value, str) else shown(value, places):>12}"

    def score(self):
        """(targets met, targets): a line may have several."""
        wanted = sum(len(line["targets"]) for line in self.lines)
        return wanted - sum(len(line["missed"]) for line in self.lines), wanted

    def write_json(self, path, about):
        with open(path, "w") as f:
            json.dump({**about, "lines": self.lines}, f, indent=1)

    def write_svg(self, path, title):
        """One bar a line: how many times better than etcd, on a logarithmic scale; right of the middle is better."""
        bars = [(f"{line['row']}: {line['name']}", line["ratios"]["etcd"]) for line in self.lines
                if line["ratios"]["etcd"] is not None and line["targets"]]
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
