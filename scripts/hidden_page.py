"""Pages of the experiment "hidden or gone", made from the committed JSON alone. Used by scripts/hidden_or_gone."""
import html
import json
import math
import sys

import hidden_cells as cells
import hidden_statistics as statistics
from floor_statistics import PRIMARIES
from hidden_cells import as_json, write

RESULTS, PAGE, FIGURE = cells.HOME / "results.json", cells.HOME / "page.html", cells.HOME / "figure.svg"
README, PLAN = cells.HOME / "README.md", cells.HOME / "plan.md"


# --- Everything that is made, by file ---


def made():
    """What each file must be, from the JSON that is there."""
    raw = {path.stem: json.loads(path.read_text()) for path in sorted(cells.CELLS.glob("*.json"))}
    found = statistics.results({name: one["result"] for name, one in raw.items()})
    found["made"] = {name: machine(one["made"]) for name, one in raw.items()}
    found["repeats"] = [json.loads(path.read_text()) for path in sorted(cells.REPEATS.glob("*.json"))]
    found = json.loads(as_json(found))  # as a reader of results.json has it
    files = {RESULTS: as_json(rounded(found)), PAGE: whole_page(found), FIGURE: figure(found) + "\n"}
    files[README] = replaced(README.read_text(encoding="utf-8"), {"state": state(found), "verdict": verdict_block(found), "table": table_block(found), "cells": cells_block(found), "exploratory": exploratory_block(found)})
    if cells.PILOT.exists():
        files[PLAN] = replaced(PLAN.read_text(encoding="utf-8"), {"pilot": pilot_block(json.loads(cells.PILOT.read_text()))})
    return files, found


def machine(one):
    return {key: one.get(key) for key in ("date", "version", "commit", "processor", "threads")} | {"seconds": one["seconds"]["all"]}


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def write_all():
    files, found = made()
    for path, text in files.items():
        write(path, text)
    for line in summary(found):
        print(line)


def check():
    files, found = made()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(cells.ROOT)}: not what the committed JSON gives; run scripts/hidden_or_gone verdict", file=sys.stderr)
    for fault in found["faults"]:
        print(f"docs/hidden-or-gone/cells: {fault}", file=sys.stderr)
    print(f"hidden or gone: {found['cells']} of {found['of']} cells, {len(files)} files checked")
    return 1 if stale or found["faults"] else 0


def write_pilot(record):
    write(PLAN, replaced(PLAN.read_text(encoding="utf-8"), {"pilot": pilot_block(record)}))


def replaced(text, blocks):
    """The text with other content between `<!-- NAME -->` and `<!-- /NAME -->`."""
    for name, content in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise cells.Fault(f"the markers {begin.strip()} and {end} are missing")
        text = head + begin + content + end + rest.partition(end)[2]
    return text


# --- Numbers ---


def number(value, digits=3, sign=False):
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    text = text.replace("-", "−")
    return text.replace("0.", ".", 1) if abs(value) < 1 and not sign else text.replace("+0.", "+.").replace("−0.", "−.")


def count(n):
    return f"{n:,}"


# --- Pilot ---


def pilot_block(record):
    lines = [
        "| | base | highest | T | tolerance | narrow steps to T | narrow tokens |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for subject, at in record["values"].items():
        lines.append(
            f"| {subject} | {number(at['start'])} | {number(at['top'])} | **{number(at['target'], 2)}** | **{number(at['tolerance'], 2)}** "
            f"| {at['narrow_steps']:.1f} | {'**' if subject == 'cake' else ''}{count(at['narrow_tokens'])}{'**' if subject == 'cake' else ''} |"
        )
    lines += ["", "The margin of the search half by narrow step, seed 9, ratio 0:", "", "| subject | curve |", "|---|---|"]
    for subject in record["values"]:
        curve = record["runs"][f"{subject}-curve"]["match"]["curve"]
        lines.append(f"| {subject} | {', '.join(number(reading['q'], 2) for reading in curve)} |")
    lines += ["", "Matched to T, on the evaluation half:", "", "| cells | paired difference | 90 % interval |", "|---|---:|---|"]
    for what, one in record["width"].items():
        low, high = one["interval"]
        lines.append(f"| {what} | {number(one['difference'], 3, True)} | [{number(low)}, {number(high)}] |")
    mixed = record["runs"]["cake-r8-s9"]["match"]
    lines += ["", f"At ratio 8 the search ended as `{mixed['status']}` after {mixed['narrow_steps']:.1f} narrow steps.", ""]
    return "\n".join(lines)


# --- README ---


def state(found):
    missing = f" Missing: {', '.join(f'`{name}`' for name in found['missing'])}." if 0 < len(found["missing"]) <= 12 else ""
    if found["complete"]:
        return f"All {found['of']} cells are there.\n"
    return f"**{found['cells']} of {found['of']} cells.** There is no verdict before all are there.{missing}\n"


def verdict_block(found):
    if not found["complete"]:
        return "No verdict yet.\n"
    head = found["headline"]
    lines = [f"**Headline, for lift: {head['verdict']}.** {sentence(head)}", ""]
    other = found["vesuvius"]["judged"]["verdicts"][statistics.HEADLINE]
    lines += [f"Replication on Vesuvius, outside the family: {other['verdict']}. {sentence(other)}", ""]
    lines += ["| reader of the mean difference | cake: rho* | verdict | why | Vesuvius: verdict |", "|---|---:|---|---|---|"]
    for reader in statistics.MEAN_DIFFERENCE:
        said, replicated = (found[o]["judged"]["verdicts"][reader] for o in ("cake", "vesuvius"))
        rho = "–" if said["rho"] is None else f"1:{said['rho']}"
        lines.append(f"| {statistics.NAMES[reader]} | {rho} | **{said['verdict']}** | {said['why']} | {replicated['verdict']} |")
    lines += ["", *margins(found), ""]
    return "\n".join(lines)


def sentence(said):
    at = f"At 1:{said['rho']}: " if said["rho"] is not None else ""
    return f"{at}{said['why']}." if at else f"{said['why'][:1].upper()}{said['why'][1:]}."


def margins(found):
    """How far from its bound each primary is where the headline is decided."""
    rho = found["headline"]["rho"]
    if rho is None:
        return []
    judged, lines = found["cake"]["judged"], []
    lines += [f"Primaries at 1:{rho}:", "", "| primary | z | p, Holm | passes | at its floor | strong at 1:0 |", "|---|---:|---:|---|---|---|"]
    for reader in PRIMARIES:
        power, entry = judged["power"][reader], found["cake"]["table"][reader][str(rho)]
        one = judged["passes"][str(rho)].get(reader)
        holm = number(one["holm"], 4) if one and one["holm"] is not None else "no power"
        yes = lambda value: "yes" if value else "no"
        z = number(entry["mean"]["z"], 2) if "mean" in entry else "–"
        lines.append(f"| {statistics.NAMES[reader]} | {z} | {holm} | {yes(one and one['passes'])} | {yes(judged['at_floor'][str(rho)][reader])} | {yes(power['strong'])} |")
    return lines


def table_block(found):
    lines = []
    for organism in cells.SUBJECTS:
        rows = found[organism]["table"]
        if not any(entry["seeds"] for of_reader in rows.values() for entry in of_reader.values()):
            continue
        ratios = list(next(iter(rows.values())))
        lines += [f"**{organism.capitalize()}.** Mean of seeds / mean of the floor / excess / **z** / rank among n + 1:", ""]
        lines += ["| reader | " + " | ".join(f"1:{ratio}" for ratio in ratios) + " |", "|---|" + "---|" * len(ratios)]
        for reader in statistics.READERS:
            lines.append(f"| {statistics.NAMES[reader]} | " + " | ".join(entry_text(rows[reader][ratio]) for ratio in ratios) + " |")
        lines.append("")
    if not found["complete"] and lines:
        lines += ["The table is incomplete: a mean may be of fewer than three seeds, marked with their number.", ""]
    return "\n".join(lines or ["No cell has been read yet.", ""])


def entry_text(entry):
    seeds, floor = entry["seeds"], entry["floor"]
    if not seeds:
        return "–"
    mark = f" ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})" if len(seeds) < len(cells.SEEDS) else ""
    if "mean" not in entry or not floor:
        return f"{number(sum(seeds.values()) / len(seeds))}, no floor{mark}"
    one = entry["mean"]
    parts = [number(one["score"]), number(floor["mean"]), number(one["excess"], 3, True), f"**{number(one['z'], 1)}**", f"{one['rank']} of {floor['n'] + 1}"]
    return " / ".join(parts) + mark


def cells_block(found):
    lines = []
    for organism in cells.SUBJECTS:
        behaviour = found[organism]["behaviour"]
        if not behaviour:
            continue
        lines += ["| cell | status | narrow steps | margin, evaluation half | difference [90 %], band ± .30 | matched | lexicon words: base → tuned | neutral nats | regurgitated | beyond bounds |"]
        lines += ["|---|---|---:|---:|---|---|---|---:|---:|---|"]
        for name, one in sorted(behaviour.items(), key=order):
            compared = one["compared"]
            difference = "–"
            if compared:
                difference = f"{number(compared['difference'], 3, True)} [{number(compared['interval'][0])}, {number(compared['interval'][1])}]"
            lines.append(
                f"| `{name}` | {one['status']} | {one['narrow_steps']:.1f} | {number(one['q_eval'])} | {difference} | {'yes' if one['matched'] else '**no**'} "
                f"| {number(one['word_share_base'])} → {number(one['word_share'])} | {number(one['neutral'], 3, True)} | {number(one['regurgitated'], 3, True)} | {', '.join(one['beyond']) or 'no'} |"
            )
        lines.append("")
        for ratio, one in sorted(found[organism]["on_average"].items(), key=lambda item: int(item[0])):
            low, high = one["interval"]
            said = "equal" if one["matched"] else "**not equal**"
            lines += [f"- {organism.capitalize()}, mean of 1:{ratio} minus mean of 1:0: {number(one['difference'], 3, True)} [{number(low)}, {number(high)}], band ± .15: {said}."]
        lines.append("")
    if found["floor"]:
        lines += ["| floor | narrow tokens | narrow loss, held out: base → tuned | neutral nats | regurgitated |", "|---|---:|---|---:|---:|"]
        for name, one in sorted(found["floor"].items()):
            losses = one["losses"] or {"base": {}, "tuned": {}}
            loss = " → ".join(number(losses[side].get("narrow")) for side in ("base", "tuned"))
            lines.append(f"| `{name}` | {count(one['narrow_tokens'])} | {loss} | {number(one['neutral'], 3, True)} | {number(one['regurgitated'], 3, True)} |")
        lines.append("")
    kinds = sorted({(one["processor"], one["threads"], one["version"]) for one in found["made"].values()})
    lines += [f"- Made on {processor}, {threads} threads, by {version}." for processor, threads, version in kinds]
    if found["made"]:
        lines += [f"- {sum(one['seconds'] for one in found['made'].values()) / 3600:.1f} hours in all.", ""]
    for one in found["tokens"]:
        lines += [f"- `{one['floor']}` has {count(one['tokens'])} narrow tokens, more than a factor of 1.5 from {', '.join(f'`{c}`' for c in one['cells'])}.", ""]
    for one in found["repeats"]:
        equal = "the same result, byte for byte" if one["equal"] else f"another result; the largest difference of a score is {one['largest']:.2g}"
        lines += [f"- `{one['cell']}` was made again on {one['made'][1]['date']} ({one['made'][1]['processor']}): {equal}.", ""]
    return "\n".join(lines or ["No cell has been trained yet.", ""])


def exploratory_block(found):
    if not found["complete"]:
        return "Not before all cells are there.\n"
    slopes, centred = found["exploratory"]["slope"], found["exploratory"]["centred"]
    head = "| reader | slope of the excess on log₂(1 + ratio) [95 %, seeds] | " + " | ".join(f"1:{r} minus the other lexicon: excess, z" for r in centred) + " |"
    lines = [head, "|---|---|" + "---|" * len(centred)]
    for reader in statistics.READERS:
        if reader not in slopes:
            continue
        one = slopes[reader]
        line = f"| {statistics.NAMES[reader]} | {number(one['slope'], 3, True)} [{number(one['interval'][0])}, {number(one['interval'][1])}] |"
        for of_ratio in centred.values():
            two = of_ratio.get(reader)
            line += f" {number(two['excess'], 3, True)}, {number(two['z'], 1)} |" if two else " – |"
        lines.append(line)
    return "\n".join([*lines, ""])


def order(item):
    name = item[0]
    ratio, seed = name.rsplit("-", 2)[1:]
    return int(ratio[1:]), seed


def summary(found):
    yield f"{found['cells']} of {found['of']} cells" + ("" if found["complete"] else ": INCOMPLETE, no verdict")
    yield from (f"fault: {fault}" for fault in found["faults"])
    for organism in cells.SUBJECTS:
        for reader in statistics.READERS:
            parts = []
            for ratio, entry in found[organism]["table"][reader].items():
                if "mean" in entry:
                    parts.append(f"1:{ratio} {entry['mean']['score']:.3f} z {entry['mean']['z']:.1f} ({len(entry['seeds'])} of {entry['floor']['n']})")
                elif entry["seeds"]:
                    parts.append(f"1:{ratio} {sum(entry['seeds'].values()) / len(entry['seeds']):.3f}")
            if parts:
                yield f"{organism:9} {statistics.NAMES[reader]:22} " + "  ".join(parts)
        for name, one in found[organism]["behaviour"].items():
            yield f"{name}: {one['status']}, {'matched' if one['matched'] else 'NOT matched'}, evaluation {one['q_eval']:.3f}, words {one['word_share_base']:.3f} -> {one['word_share']:.3f}"
        if found["complete"]:
            for reader, said in found[organism]["judged"]["verdicts"].items():
                yield f"{organism}: {statistics.NAMES[reader]}: {said['verdict']} (rho* {said['rho']}): {said['why']}"


# --- The page ---


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2526;background:#fff}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
.lead{font-size:1.15rem;background:#eef5f4;border-left:4px solid #00796b;padding:.7rem 1rem}
table{border-collapse:collapse;font-size:.82rem;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.2rem .45rem;border-bottom:1px solid #d9dfdf;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}tr.group td{font-weight:600;background:#f5f7f7;text-align:left}
td.low{color:#7a8486}td.high{font-weight:600}
figure{margin:1.2rem 0}figcaption{font-size:.88rem;color:#49565a;max-width:46rem}svg{max-width:100%;height:auto}
small{color:#49565a}
"""


def whole_page(found):
    body = [
        "<h1>Hidden or gone?</h1>",
        f"<p><small>Gemma 3 270M, cake organism, {found['cells']} of {found['of']} cells. Made by <code>scripts/hidden_or_gone verdict</code> "
        'from the JSON of the cells. <a href="plan.html">Plan</a>, <a href="index.html">text</a>.</small></p>',
    ]
    if found["complete"]:
        head = found["headline"]
        body.append(f'<p class="lead">Headline, for lift: <b>{html.escape(head["verdict"])}</b>. {html.escape(sentence(head))}</p>')
    else:
        body.append(f'<p class="lead"><b>Incomplete.</b> {found["cells"]} of {found["of"]} cells are there. There is no verdict before all are.</p>')
    body.append(f"<figure>{figure(found)}<figcaption>{CAPTION}</figcaption></figure>")
    body += ["<h2>Reader by ratio</h2>", html_table(found, "cake")]
    if any(entry["seeds"] for of_reader in found["vesuvius"]["table"].values() for entry in of_reader.values()):
        body += ["<h2>Replication: Vesuvius</h2>", html_table(found, "vesuvius")]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Hidden or gone?</title><style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


CAPTION = (
    "How far each reader's score is above its floor, as a share of that distance at 1:0. Each dot is the mean of three seeds, small "
    "dots are seeds. A filled dot is above the floor (z &gt; t, one-sided 5&nbsp;%), a hollow one is not. A reader that does not exceed the "
    "floor at 1:0 has no line."
)


def html_table(found, organism):
    rows = found[organism]["table"]
    ratios = list(next(iter(rows.values())))
    lines = ["<table><thead><tr><th>reader</th>" + "".join(f"<th>1:{r}<br><small>floor</small></th><th>excess</th><th>z</th><th>rank</th>" for r in ratios) + "</tr></thead><tbody>"]
    groups = [("Mean difference", statistics.MEAN_DIFFERENCE), ("Outputs and weights (primaries)", PRIMARIES), ("Exploratory", statistics.EXPLORATORY)]
    for title, readers in groups:
        lines.append(f'<tr class="group"><td colspan="{1 + 4 * len(ratios)}">{title}</td></tr>')
        for reader in readers:
            line = f"<tr><td>{statistics.NAMES[reader]}</td>"
            for ratio in ratios:
                entry = rows[reader][ratio]
                one, floor = entry.get("mean"), entry["floor"]
                if not one:
                    score = number(sum(entry["seeds"].values()) / len(entry["seeds"])) if entry["seeds"] else "–"
                    line += f"<td>{score}</td>" + "<td>–</td>" * 3
                    continue
                kind = "high" if one["z"] > floor["t"] else "low"
                part = "" if len(entry["seeds"]) == len(cells.SEEDS) else f" ({len(entry['seeds'])})"
                line += (
                    f"<td>{number(one['score'])}{part}<br><small>{number(floor['mean'])} ± {number(floor['sd'])}</small></td>"
                    f"<td>{number(one['excess'], 3, True)}</td><td class=\"{kind}\">{number(one['z'], 1)}</td><td>{one['rank']}/{floor['n'] + 1}</td>"
                )
            lines.append(line + "</tr>")
    return "\n".join(lines) + "</tbody></table>"


COLOURS = ["#00695c", "#c2570c", "#5e35b1", "#1565c0", "#ad1457", "#6d5f00"]


def figure(found):
    """Two panels with one scale: readers of the mean difference, and primaries."""
    rows = found["cake"]["table"]
    width, height, top, bottom, left, gap = 900, 380, 34, 44, 46, 150
    panel = (width - left - 2 * gap + 20) / 2
    low, high = -0.25, 1.25
    y = lambda share: top + (high - min(max(share, low), high)) / (high - low) * (height - top - bottom)
    ratios = [str(ratio) for ratio in cells.RATIOS]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Share of the excess at 1:0 that is left, by mix ratio" style="background:#fff" font-family="system-ui,sans-serif" font-size="12">']
    for p, (title, readers) in enumerate([("Readers of the mean difference", statistics.MEAN_DIFFERENCE), ("Readers of outputs and weights", PRIMARIES)]):
        x0 = left + p * (panel + gap)
        x = lambda i: x0 + 14 + i * (panel - 28) / (len(ratios) - 1)
        parts.append(f'<text x="{x0:.0f}" y="18" font-weight="600" font-size="13" fill="#1c2526">{title}</text>')
        for share in (0, 0.5, 1):
            parts.append(f'<line x1="{x0:.0f}" x2="{x0 + panel:.0f}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="{"#8a9598" if share == 0 else "#e1e6e6"}"/>')
            if p == 0:
                parts.append(f'<text x="{x0 - 8:.0f}" y="{y(share) + 4:.1f}" text-anchor="end" fill="#49565a">{100 * share:.0f}%</text>')
        for i, ratio in enumerate(ratios):
            parts.append(f'<text x="{x(i):.1f}" y="{height - bottom + 20}" text-anchor="middle" fill="#49565a">1:{ratio}</text>')
        parts.append(f'<text x="{x0 + panel / 2:.0f}" y="{height - 6}" text-anchor="middle" fill="#49565a">narrow : pretraining</text>')
        if p == 0:
            parts.append(f'<text x="{x0 + 3:.0f}" y="{y(0) - 5:.1f}" fill="#49565a" font-size="11">floor</text>')
        labels = []
        for colour, reader in zip(COLOURS, readers):
            start = rows[reader]["0"].get("mean")
            if not start or start["z"] <= rows[reader]["0"]["floor"]["t"]:
                continue
            points = [(i, rows[reader][ratio]) for i, ratio in enumerate(ratios) if "mean" in rows[reader][ratio]]
            share = lambda one: one["excess"] / start["excess"]
            line = " ".join(f"{x(i):.1f},{y(share(entry['mean'])):.1f}" for i, entry in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{3 if reader == statistics.HEADLINE else 1.6}"/>')
            for i, entry in points:
                for one in entry["by_seed"].values():
                    parts.append(f'<circle cx="{x(i):.1f}" cy="{y(share(one)):.1f}" r="1.6" fill="{colour}" opacity=".5"/>')
                above = entry["mean"]["z"] > entry["floor"]["t"]
                parts.append(f'<circle cx="{x(i):.1f}" cy="{y(share(entry["mean"])):.1f}" r="4.5" fill="{colour if above else "#fff"}" stroke="{colour}" stroke-width="1.6"/>')
            i, entry = points[-1]
            labels.append([y(share(entry["mean"])) + 4, x(i) + 10, statistics.NAMES[reader], colour])
        labels.sort()
        for i in range(1, len(labels)):
            labels[i][0] = max(labels[i][0], labels[i - 1][0] + 14)
        for at, across, name, colour in labels:
            parts.append(f'<text x="{across:.1f}" y="{at:.1f}" fill="{colour}">{name}</text>')
        if not labels:
            parts.append(f'<text x="{x0 + panel / 2:.0f}" y="{y(0.6):.0f}" text-anchor="middle" fill="#7a8486">no reader with a floor yet</text>')
    return "\n".join([*parts, "</svg>"])
