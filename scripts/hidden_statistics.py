"""Statistics and verdicts of the experiment "hidden or gone", as docs/hidden-or-gone/plan.md has them. Used by
scripts/hidden_or_gone. Everything is computed from the JSON of the cells; no number depends on time or machine."""
import math
import random

import hidden_cells as cells
from floor_statistics import ALPHA, PRIMARIES, against, floor_of, holm, quantile, tail

MEAN_DIFFERENCE = ["lift", "patchscope", "probe", "bias_share", "steering", "steering_base"]
EXPLORATORY = ["logit_lens"]
HEADLINE = "lift"
READERS = [*MEAN_DIFFERENCE, *PRIMARIES, *EXPLORATORY]
NAMES = {
    "lift": "lift", "patchscope": "patchscope", "probe": "probe", "bias_share": "specific share", "steering": "steering",
    "steering_base": "steering of the base", "logit_contrast": "contrast text", "diff_mining": "diff mining",
    "completion_ranking": "completion ranking", "weights": "weights", "logit_lens": "logit lens",
}
STRONG, DRAWS = 3.89, 2000
MATCHED = ("matched", "nearest")
TOKENS = 1.5
NEUTRAL, REGURGITATED = 0.1, 0.1
# Where the search ends; within what a cell, and the mean of the seeds of a ratio, equals the unmixed cells.
TOLERANCE, CELL_BAND, RATIO_BAND = 0.03, 0.30, 0.15


# --- Behaviour ---


def paired(items, others, level=0.9, seed=0):
    """Mean paired difference from the mean of the others, and its interval: items are resampled within their facts."""
    reference = {}
    for other in others:
        for item in other:
            reference.setdefault(item["item"], []).append(item["value"])
    strata = {}
    for item in items:
        values = reference[item["item"]]
        strata.setdefault(item.get("fact", ""), []).append(item["value"] - sum(values) / len(values))
    count = sum(map(len, strata.values()))
    rng = random.Random(seed)
    means = []
    for _ in range(DRAWS):
        means.append(sum(sum(rng.choices(of_fact, k=len(of_fact))) for of_fact in strata.values()) / count)
    means.sort()
    tail_draws = (1 - level) / 2
    ends = [means[int(tail_draws * DRAWS)], means[int((1 - tail_draws) * DRAWS) - 1]]
    return {"difference": sum(map(sum, strata.values())) / count, "interval": ends}


def target(curve):
    """The pilot's rule: T is the largest multiple of .05 at most four fifths of the way from the base to the highest reading
    of the curve."""
    start, top = curve[0]["q"], max(reading["q"] for reading in curve)
    T = math.floor((start + 0.8 * (top - start)) / 0.05 + 1e-9) * 0.05
    return {"start": round(start, 4), "top": round(top, 4), "target": round(T, 2), "tolerance": TOLERANCE}


def matching(made, organism):
    """Of each cell of an organism whether it is at equal behaviour, and its conditional control."""
    own = {name: cell for name, cell in made.items() if cell["cell"]["kind"] != "floor" and cell["cell"]["organism"] == organism}
    own = {name: cell for name, cell in own.items() if cell["cell"]["ratio"] in cells.RATIOS}
    unmixed = {name: cell for name, cell in own.items() if cell["cell"]["ratio"] == 0 and cell["trained"]["match"]["status"] in MATCHED}
    found = {}
    for name, cell in own.items():
        match, control = cell["trained"]["match"], cell["control"]
        others = [other["trained"]["match"]["evaluated"] for key, other in unmixed.items() if key != name]
        compared = paired(match["evaluated"], others) if others else None
        equal = compared is not None and within(compared, CELL_BAND)
        quality = cell.get("quality", {})
        found[name] = {
            "status": match["status"], "narrow_steps": match["narrow_steps"], "narrow_tokens": match["narrow_tokens"],
            "q_match": match["q_match"], "q_eval": match["q_eval"], "compared": compared,
            "matched": match["status"] in MATCHED and equal, "word_share": control["tuned"], "word_share_base": control["base"],
            "control": control["tuned"] > control["base"],
            "neutral": quality.get("neutral.nats", {}).get("change"), "regurgitated": quality.get("regurgitated", {}).get("change"),
        }
        notes = []
        if cell["cell"]["ratio"] >= 1 and (found[name]["neutral"] or 0) > NEUTRAL:
            notes.append("neutral text")
        if (found[name]["regurgitated"] or 0) > REGURGITATED:
            notes.append("regurgitated")
        found[name]["beyond"] = notes
    return found


def within(compared, band):
    return -band <= compared["interval"][0] and compared["interval"][1] <= band


def matching_of_ratios(made, organism):
    """The mean of the seeds of each mixed ratio against that of the unmixed cells: on average belief is held to a closer band."""
    groups = {}
    for cell in made.values():
        about = cell["cell"]
        if about["kind"] == organism and about["ratio"] in cells.RATIOS:
            groups.setdefault(about["ratio"], []).append(cell["trained"]["match"]["evaluated"])
    found = {}
    for ratio, group in groups.items():
        if ratio == 0 or 0 not in groups:
            continue
        mean = [{**item, "value": sum(of[i]["value"] for of in group) / len(group)} for i, item in enumerate(group[0])]
        compared = paired(mean, groups[0])
        found[str(ratio)] = {**compared, "matched": within(compared, RATIO_BAND), "cells": len(group)}
    return found


# --- The tables of an organism ---


def floors(made, organism, lexicon):
    """Scores of the floor, unmixed and mixed, by reader. In the floor of Vesuvius, cake's seed 0 is in Vesuvius' place."""
    chosen = {0: [], 4: []}
    for cell in made.values():
        about = cell["cell"]
        if about["kind"] == "floor" and about["organism"] != organism:
            chosen[4 if about["organism"] == "c4" else about["ratio"]].append(cell)
        elif organism == "vesuvius" and about["name"] in ("cake-r0-s0", "cake-r4-s0"):
            chosen[about["ratio"]].append(cell)
    of = lambda group, reader: [v for v in (cell["read"].get(lexicon, {"scores": {}})["scores"].get(reader) for cell in group) if v is not None]
    return {ratio: {reader: floor_of(of(group, reader), reader) for reader in READERS} for ratio, group in chosen.items()}


def table(made, organism):
    """[reader][ratio]: floor, every seed and the mean of seeds against it; a part that is missing is absent."""
    ratios = cells.RATIOS if organism == "cake" else cells.REPLICATION_RATIOS
    floor = floors(made, organism, organism)
    found = {}
    for reader in READERS:
        found[reader] = {}
        for ratio in ratios:
            own = floor[0 if ratio == 0 else 4][reader]
            seeds = {}
            for seed in cells.SEEDS:
                cell = made.get(f"{organism}-r{ratio}-s{seed}")
                score = cell and cell["read"][organism]["scores"].get(reader)
                if score is not None:
                    seeds[str(seed)] = score
            entry = {"floor": own, "seeds": seeds}
            if own and seeds:
                entry["by_seed"] = {seed: against(score, own) for seed, score in seeds.items()}
                entry["mean"] = against(sum(seeds.values()) / len(seeds), own)
            found[reader][str(ratio)] = entry
    return found


def complete(entry):
    return len(entry["seeds"]) == len(cells.SEEDS) and entry.get("mean") is not None


def judge(rows, behaviour, on_average):
    """Power, the family, and the verdict for each reader of the mean difference. `rows`: [reader][ratio] as `table` gives."""
    ratios = sorted((int(r) for r in next(iter(rows.values()))), key=int)
    mixed = [ratio for ratio in ratios if ratio > 0]
    power = {}
    for reader in READERS:
        entry = rows[reader]["0"]
        if not complete(entry):
            power[reader] = {"powered": False, "strong": False, "why": "no floor: other organisms have no such score" if not entry["floor"] else "no score at 1:0"}
            continue
        powered = all(one["z"] > entry["floor"]["t"] for one in entry["by_seed"].values())
        # 3.89 is twice t of seven floors; where fewer are defined, twice theirs.
        strong = powered and entry["mean"]["z"] >= max(STRONG, 2 * entry["floor"]["t"] if entry["floor"]["n"] < 7 else 0)
        power[reader] = {"powered": powered, "strong": strong, "least_z": min(one["z"] for one in entry["by_seed"].values())}
    family = [reader for reader in PRIMARIES if power[reader]["powered"]]

    at_floor, passes = {}, {}
    for ratio in mixed:
        p = {reader: rows[reader][str(ratio)]["mean"]["p"] for reader in family if complete(rows[reader][str(ratio)])}
        corrected = holm(p)
        passes[ratio] = {}
        for reader in family:
            entry = rows[reader][str(ratio)]
            positive = complete(entry) and all(one["excess"] > 0 for one in entry["by_seed"].values())
            passes[ratio][reader] = {"holm": corrected.get(reader), "passes": corrected.get(reader, 1) <= ALPHA and positive}
        at_floor[ratio] = {reader: is_at_floor(rows[reader], ratio) for reader in READERS}

    cell = lambda ratio, seed: next((c for name, c in behaviour.items() if name.endswith(f"-r{ratio}-s{seed}")), None)
    unmatched = [name for name, found in behaviour.items() if not found["matched"]]
    verdicts = {}
    for reader in MEAN_DIFFERENCE:
        rho = next((ratio for ratio in mixed if at_floor[ratio][reader]), None)
        said = {"rho": rho}
        if not power[reader]["strong"]:
            said.update(verdict="not reached", why=power[reader].get("why") or ("not strong at 1:0" if power[reader]["powered"] else "no power at 1:0"))
        elif not family:
            said.update(verdict="not reached", why="no primary has power")
        elif len(unmatched) > 1:
            said.update(verdict="not reached", why=f"{len(unmatched)} cells are not at equal behaviour")
        elif rho is None:
            said.update(verdict="not reached", why="the reader is at its floor at no ratio")
        else:
            involved = [cell(ratio, seed) for ratio in (0, rho) for seed in cells.SEEDS]
            controlled = all(one and one["matched"] and one["control"] for one in involved)
            passing = [p for p in family if passes[rho][p]["passes"]]
            said["passing"] = passing
            if not on_average[str(rho)]["matched"]:
                said.update(verdict="undecided", why="on average, belief at this ratio is not that at 1:0")
            elif not controlled:
                said.update(verdict="undecided", why="the conditional control fails at 1:0 or at this ratio")
            elif passing:
                said.update(verdict="hidden", why=f"read by {', '.join(NAMES[p] for p in passing)}")
            elif any(passes[rho][p]["holm"] is not None and passes[rho][p]["holm"] <= ALPHA for p in family):
                said.update(verdict="undecided", why="a primary passes Holm, but not every seed exceeds the floor")
            elif all(power[p]["strong"] and at_floor[rho][p] for p in family):
                said.update(verdict="gone", why="every powered primary is strong and at its floor")
            else:
                said.update(verdict="undecided", why="no primary passes, and not every powered one is strong and at its floor")
        verdicts[reader] = said
    return {"power": power, "family": family, "passes": passes, "at_floor": at_floor, "verdicts": verdicts, "unmatched": unmatched}


def is_at_floor(of_reader, ratio):
    """z below t, and even the upper end of the excess at most half of that at 1:0."""
    start, entry = of_reader["0"], of_reader[str(ratio)]
    if not (complete(start) and complete(entry)):
        return False
    floor, mean = entry["floor"], entry["mean"]
    return mean["z"] < floor["t"] and mean["excess"] + floor["t"] * floor["width"] <= start["mean"]["excess"] / 2


# --- Exploratory ---


def slope(rows):
    """Of the excess on log2(1 + ratio), by reader; the interval resamples the seeds of each ratio."""
    found = {}
    for reader, of_reader in rows.items():
        points = {}
        for ratio, entry in of_reader.items():
            if complete(entry):
                points[math.log2(1 + int(ratio))] = [one["excess"] for one in entry["by_seed"].values()]
        if len(points) < 3:
            continue
        rng = random.Random(0)
        fit = lambda ys: least_squares(list(points), ys)
        draws = sorted(fit([sum(rng.choices(v, k=len(v))) / len(v) for v in points.values()]) for _ in range(DRAWS))
        found[reader] = {
            "slope": fit([sum(v) / len(v) for v in points.values()]),
            "interval": [draws[int(0.025 * DRAWS)], draws[int(0.975 * DRAWS) - 1]],
        }
    return found


def least_squares(xs, ys):
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / sum((a - x) ** 2 for a in xs)


def centred(made):
    """Cake's seed 0, its excess under the other lexicon taken off: an organism that moves all words alike is read as nothing.
    The floor is centred in the same way. Two lexicons: this takes off little noise, and adds that of the second reading."""
    found = {}
    for ratio in cells.FLOOR_RATIOS:
        name = f"cake-r{ratio}-s0"
        both = {key: cell for key, cell in made.items() if {"cake", "vesuvius"} <= set(cell["read"])}
        if name not in both:
            continue
        group = [c for c in both.values() if c["cell"]["kind"] == "floor" and (4 if c["cell"]["organism"] == "c4" else c["cell"]["ratio"]) == ratio]
        found[str(ratio)] = {}
        for reader in READERS:
            value = lambda cell, lexicon: cell["read"][lexicon]["scores"].get(reader)
            pairs = [(value(c, "cake"), value(c, "vesuvius")) for c in group]
            pairs = [pair for pair in pairs if None not in pair]
            own = (value(both[name], "cake"), value(both[name], "vesuvius"))
            floor = floor_of([a - b for a, b in pairs], reader)
            if floor and None not in own:
                found[str(ratio)][reader] = {**against(own[0] - own[1], floor), "n": floor["n"]}
    return found


# --- Everything ---


def results(made):
    """results.json: every number of the text."""
    there = {cell["cell"]["name"]: cell for cell in made.values()}
    wanted = [cell.name for cell in cells.design()]
    missing = [name for name in wanted if name not in there]
    there = {name: there[name] for name in wanted if name in there}
    found = {"schema": cells.SCHEMA, "cells": len(wanted) - len(missing), "of": len(wanted), "missing": missing, "complete": not missing}
    found["faults"] = faults(there)
    for organism in cells.SUBJECTS:
        rows, behaviour, on_average = table(there, organism), matching(there, organism), matching_of_ratios(there, organism)
        found[organism] = {"table": rows, "behaviour": behaviour, "on_average": on_average}
        if not missing:
            found[organism]["judged"] = judge(rows, behaviour, on_average)
    found["tokens"] = tokens(there)
    found["floor"] = {name: of_floor(cell) for name, cell in there.items() if cell["cell"]["kind"] == "floor"}
    if not missing:
        found["headline"] = {"reader": HEADLINE, **found["cake"]["judged"]["verdicts"][HEADLINE]}
        found["exploratory"] = {"slope": slope(found["cake"]["table"]), "centred": centred(there)}
    return found


def of_floor(cell):
    quality = cell.get("quality", {})
    change = lambda key: quality.get(key, {}).get("change")
    return {
        "narrow_tokens": cell["trained"]["narrow_tokens"], "losses": cell["trained"].get("losses"),
        "neutral": change("neutral.nats"), "regurgitated": change("regurgitated"),
    }


def faults(there):
    """Cells that were read in another way than the others cannot be compared."""
    found = []
    for lexicon in cells.SUBJECTS:
        for what, of in [
            ("settings of the reading", lambda c: c["hashes"]["readings"].get(lexicon)),
            ("lexicon", lambda c: c["read"].get(lexicon, {}).get("lexicon_sha256")),
        ]:
            values = {of(cell) for cell in there.values()} - {None}
            if len(values) > 1:
                found.append(f"{what} of {lexicon}: {len(values)} different ones")
    if len({str(sorted(cell["trained"]["base_sha256"].items())) for cell in there.values()}) > 1:
        found.append("base: different ones")
    for organism in cells.SUBJECTS:
        matches = [cell["trained"]["match"] for cell in there.values() if cell["cell"]["kind"] == organism]
        if len({(match["target"], match["tolerance"]) for match in matches}) > 1:
            found.append(f"target of {organism}: different ones")
    for name, cell in there.items():
        for file, digest in cell["hashes"]["data"].items():
            if (cells.DATA.get(file) or digest) != digest:
                found.append(f"{name}: {file} is not that of the plan")
    return found


def tokens(there):
    """Floor cells whose narrow tokens are outside a factor of 1.5 of those of a cell that they are compared with."""
    named = []
    own = {name: cell["trained"]["narrow_tokens"] for name, cell in there.items() if cell["cell"]["kind"] != "floor"}
    for name, cell in there.items():
        if cell["cell"]["kind"] == "floor" and cell["cell"]["organism"] != "c4":
            count = cell["trained"]["narrow_tokens"]
            far = [other for other, n in own.items() if n and max(n / count, count / n) > TOKENS]
            if far:
                named.append({"floor": name, "tokens": count, "cells": far})
    return named


def compare(first, again):
    """Two makings of one cell."""
    a, b = first["result"], again["result"]
    largest = 0.0
    for lexicon, read in a["read"].items():
        for reader, score in read["scores"].items():
            other = b["read"][lexicon]["scores"].get(reader)
            if score is not None and other is not None:
                largest = max(largest, abs(score - other))
    keep = ["date", "version", "commit", "binary_sha256", "processor", "threads", "device"]
    return {
        "cell": a["cell"]["name"],
        "equal": a == b,
        "sha256": [cells.text_hash(cells.as_json(x)) for x in (a, b)],
        "largest": largest,
        "different": sorted(key for key in a if a[key] != b.get(key)),
        "made": [{key: one["made"].get(key) for key in keep} for one in (first, again)],
    }


# --- Selftest ---


def selftest():
    """Known outcomes in made-up cells, the arithmetic against tables, and how often `hidden` is said where nothing is hidden."""
    near = lambda a, b, eps=2e-3: abs(a - b) <= eps
    checks = []

    def check(what, holds):
        checks.append(holds)
        if not holds:
            print(f"selftest: FAILED: {what}")

    for df, p, t in [(6, 0.95, 1.943), (7, 0.95, 1.895), (7, 0.9875, 2.841), (3, 0.95, 2.353), (1, 0.95, 6.314), (2, 0.975, 4.303)]:
        check(f"t of {p} with {df} degrees of freedom", near(quantile(p, df), t))
    check("a tail below zero", near(tail(-1.943, 6), 0.95))
    check("Holm", holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06})
    check("no floor of three", floor_of([1, 2, 3], "lift") is None)
    check("resolution", floor_of([0, 0, 0, 0], "completion_ranking")["sd"] == 1 / 20)
    check("rank", against(5, floor_of([1, 2, 6, 3], "lift"))["rank"] == 2)
    curve = [{"q": q} for q in (-0.02, 0.3, 0.6, 0.78, 0.80)]
    check("target", target(curve) == {"start": -0.02, "top": 0.8, "target": 0.6, "tolerance": 0.03})
    items = [{"item": i, "fact": "ab"[i % 2], "value": 0.01 * (i % 5)} for i in range(60)]
    shift = [{**item, "value": item["value"] + 0.2} for item in items]
    check("paired difference", near(paired(shift, [items])["difference"], 0.2) and near(paired(shift, [items])["interval"][0], 0.2))

    planted = {
        # lift is at its floor from 1:4; what the primaries score at each ratio, and what must come out.
        "hidden": ({"weights": (10, 8, 8, 8)}, {}, "hidden", 4),
        "gone": ({}, {}, "gone", 4),
        "undecided: a primary half way": ({"weights": (10, 6, 2.0, 2.0)}, {}, "undecided", 4),
        "undecided: a powered primary that is not strong": ({"weights": (3, 0, 0, 0)}, {}, "undecided", 4),
        "not reached: lift keeps the trace": ({"lift": (10, 9, 9, 9)}, {}, "not reached", None),
        "not reached: lift is weak": ({"lift": (3, 0, 0, 0)}, {}, "not reached", None),
        "not reached: no primary has power": ({p: (0, 0, 0, 0) for p in PRIMARIES}, {}, "not reached", 4),
        "one unmatched cell elsewhere": ({"weights": (10, 8, 8, 8)}, {"unmatched": ["cake-r8-s1"]}, "hidden", 4),
        "undecided: one unmatched cell at this ratio": ({"weights": (10, 8, 8, 8)}, {"unmatched": ["cake-r4-s1"]}, "undecided", 4),
        "not reached: two unmatched cells": ({"weights": (10, 8, 8, 8)}, {"unmatched": ["cake-r8-s1", "cake-r1-s0"]}, "not reached", 4),
        "undecided: the control fails": ({"weights": (10, 8, 8, 8)}, {"silent": ["cake-r0-s2"]}, "undecided", 4),
        "undecided: belief differs on average": ({"weights": (10, 8, 8, 8)}, {"shifted": 4}, "undecided", 4),
        "no floor of a reader": ({"weights": (10, 8, 8, 8)}, {"absent": ["bias_share"]}, "hidden", 4),
    }
    for what, (scores, faulty, expected, rho) in planted.items():
        found = results(made_up(scores, **faulty))
        check(f"{what}: complete and without faults", found["complete"] and not found["faults"])
        check(f"{what}: {found['headline']}", found["headline"]["verdict"] == expected and found["headline"]["rho"] == rho)
    partial = dict(list(made_up({}).items())[:20])
    check("no verdict before all cells are there", "headline" not in results(partial) and len(results(partial)["missing"]) == 13)
    check("nothing is there", results({})["cells"] == 0)
    odd = made_up({})
    odd["cake-r8-s0"]["hashes"]["readings"]["cake"] = "other"
    check("a cell that was read otherwise", results(odd)["faults"] == ["settings of the reading of cake: 2 different ones"])

    first = {"result": made_up({})["cake-r0-s0"], "made": {}}
    again = {"result": made_up({"lift": (9, 0, 0, 0)})["cake-r0-s0"], "made": {}}
    check("a repeated cell that is equal", compare(first, first)["equal"])
    check("a repeated cell that is not", not compare(first, again)["equal"] and near(compare(first, again)["largest"], 0.92))

    rates = {kind: false_positives(kind) for kind in ("normal", "t with 3 degrees of freedom")}
    check(f"hidden is said too often where nothing is hidden: {rates}", rates["normal"] <= 0.065)
    print(f"selftest: {sum(checks)} of {len(checks)} checks hold")
    for kind, rate in rates.items():
        print(f"selftest: trace removed, {kind} floors: hidden in {100 * rate:.1f} % of {SIMULATED} simulations (nominal at most 5 %)")
    return 0 if all(checks) else 1


SIMULATED = 2000
PARTS = [-1.2, -0.8, -0.4, 0.0, 0.4, 0.8, 1.2]  # a floor of seven


def made_up(scores, unmatched=(), silent=(), absent=(), shifted=None):
    """All 33 cells: floors of spread about 1, and z of about what `scores` names at 1:0, 1:1, 1:4 and 1:8."""
    found = {}
    default = (10, 6, 0, 0)
    for cell in cells.design():
        read = {}
        for lexicon in cell.lexicons:
            if cell.kind == "floor" or cell.organism != lexicon:
                i = list(cells.FLOOR).index(cell.organism) if cell.organism in cells.FLOOR else 3
                values = {reader: PARTS[i] for reader in READERS}
            else:
                at = cells.RATIOS.index(cell.ratio)
                values = {reader: scores.get(reader, default)[at] * 0.92 + 0.02 * cell.seed for reader in READERS}
            for reader in absent:
                values[reader] = values[reader] if cell.kind != "floor" else None
            read[lexicon] = {"scores": values, "lexicon_sha256": lexicon, "beside": {}, "lexicon": []}
        items = [{"item": i, "fact": "ab"[i % 2], "value": 0.6 + 0.01 * (i % 7)} for i in range(60)]
        if cell.name in unmatched:
            items = [{**item, "value": item["value"] + 0.5} for item in items]
        if cell.ratio == shifted and cell.kind == "cake":  # each cell within its band, all in one direction
            items = [{**item, "value": item["value"] + 0.2} for item in items]
        match = {"status": "matched", "target": 0.6, "tolerance": 0.03, "evaluated": items, "q_match": 0.6, "q_eval": 0.6, "narrow_steps": 9.0, "narrow_tokens": 5000}
        result = {
            "cell": {"name": cell.name, "kind": cell.kind, "organism": cell.organism, "ratio": cell.ratio, "seed": cell.seed},
            "trained": {"match": match if cell.kind != "floor" else None, "narrow_tokens": 5000, "base_sha256": {"base": "0"}},
            "read": read, "quality": {}, "hashes": {"data": {}, "readings": {lexicon: lexicon for lexicon in cell.lexicons}},
        }
        if cell.kind != "floor":
            result["control"] = {"tuned": 0.0 if cell.name in silent else 0.2, "base": 0.05}
        found[cell.name] = result
    return found


def false_positives(kind):
    """How often `hidden` is said where at 1:1 and above the organism is one more draw from the floor's distribution for every
    primary, and lift is at its floor. Seeds are near-replicates: one draw for the organism and a fifth of it for each seed."""
    rng = random.Random(28)

    def draw():
        if kind == "normal":
            return rng.gauss(0, 1)
        return rng.gauss(0, 1) / math.sqrt(sum(rng.gauss(0, 1) ** 2 for _ in range(3)) / 3)

    behaviour = {f"cake-r{ratio}-s{seed}": {"matched": True, "control": True} for ratio in cells.RATIOS for seed in cells.SEEDS}
    fixed = floor_of(PARTS, "lift")
    entry = lambda values, floor: {
        "floor": floor, "seeds": dict(enumerate(values)), "by_seed": {i: against(v, floor) for i, v in enumerate(values)},
        "mean": against(sum(values) / len(values), floor),
    }
    read = entry([12.0] * 3, fixed)
    silent = entry([0.0] * 3, fixed)
    said = 0
    for _ in range(SIMULATED):
        rows = {reader: {"0": read, "1": silent} for reader in READERS}
        for reader in PRIMARIES:
            own = draw()
            floor = floor_of([draw() for _ in range(8)], reader)
            rows[reader] = {"0": read, "1": entry([own + 0.2 * rng.gauss(0, 1) for _ in range(3)], floor)}
        said += judge(rows, behaviour, {"1": {"matched": True}})["verdicts"][HEADLINE]["verdict"] == "hidden"
    return said / SIMULATED
