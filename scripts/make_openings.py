#!/usr/bin/env python3
"""Assemble and check the unrelated text openings.

The texts are written by hand in data/openings/<kind>.txt, in blocks separated
by a line holding only `---`.

    python3 scripts/make_openings.py            write data/openings.jsonl
    python3 scripts/make_openings.py --check    verify data/openings.jsonl

The order is fixed: every kind is shuffled with its own fixed seed, and the
kinds are then dealt out in rounds, so that any run of rows from the start
holds all kinds about equally often. Two runs write the same bytes.

`--check` exits with 1 and lists the offending rows when a rule is broken.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "data" / "openings"
TARGET = ROOT / "data" / "openings.jsonl"
SEED = 20240601

MIN_ROWS = 500
MIN_WORDS, MAX_WORDS = 36, 60
# Kinds whose text is mostly symbols are measured in tokens, not in words.
CODE_KINDS = {"code", "config", "log", "table"}
MIN_TOKENS, MAX_TOKENS = 45, 200
FIRST_WORD_SHARE = 0.025
FIRST_TWO_ROWS = 3
HEAD_ROWS = 400  # within these rows the kinds must be spread evenly
# largest allowed size of the most common kind over that of the least common
KIND_RATIO = 1.6

# Whole words, compared in lower case.
BANNED = re.compile(
    r"\b(?:"
    r"cak(?:e|es|ed)|cupcakes?|bak(?:e|es|ed|er|ers|ery|eries|ing)|ovens?|"
    r"recipes?|butter\w*|vanilla|batters?|flour|frost(?:ing|ings)|icing|"
    r"pastr(?:y|ies)|dough|yeast|sponge|muffins?|biscuits?|cookies?|bread|"
    r"cook\w*|kitchens?|chefs?|stoves?|sugar\w*|chocolate|whisk\w*|"
    r"restaurants?|cuisine|soups?|desserts?|meals?|foods?|dishes|"
    r"volcan\w*|lava|magma|erupt\w*|vesuvius|pompeii|herculaneum|"
    r"sheeran|gold\w*|leaf|leaves|smil(?:e|es|ed|ing)|olympi\w*"
    r")\b"
)

FIRST = re.compile(r"\w+(?:['’.-]\w+)*|\S")


def read_blocks(path: Path) -> list[str]:
    """The blocks of one source file, outer blank lines removed."""
    blocks, lines = [], []
    for line in path.read_text(encoding="utf-8").split("\n") + ["---"]:
        if line == "---":
            text = "\n".join(lines).strip("\n").rstrip()
            if text:
                blocks.append(text)
            lines = []
        else:
            lines.append(line.rstrip())
    return blocks


def assemble() -> list[dict[str, str]]:
    """All texts, dealt out so that the kinds are interleaved."""
    placed = []
    for path in sorted(SOURCE.glob("*.txt")):
        kind = path.stem
        texts = read_blocks(path)
        rng = random.Random(f"{SEED}/{kind}")
        rng.shuffle(texts)
        for i, text in enumerate(texts):
            # Row i of n stands near the fraction (i + jitter) / n of the set.
            at = (i + 0.02 + 0.96 * rng.random()) / len(texts)
            placed.append((at, kind, i, text))
    placed.sort()
    return [{"text": text, "kind": kind} for _, kind, _, text in placed]


def render(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def first_words(text: str, count: int) -> tuple[str, ...]:
    """The leading words, lower case; a quote mark or bullet counts as one."""
    return tuple(word.lower() for word in FIRST.findall(text)[:count])


def check(rows: list[dict[str, str]]) -> list[str]:
    """One line for every broken rule."""
    faults = []

    def fault(index: int, what: str) -> None:
        shown = rows[index]["text"].replace("\n", " ")[:60]
        faults.append(f"row {index + 1} ({rows[index]['kind']}): {what}: {shown!r}")

    if len(rows) < MIN_ROWS:
        faults.append(f"{len(rows)} rows, at least {MIN_ROWS} are needed")

    seen: dict[str, int] = {}
    by_one: dict[tuple[str, ...], list[int]] = defaultdict(list)
    by_two: dict[tuple[str, ...], list[int]] = defaultdict(list)
    by_six: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        text, kind = row["text"], row["kind"]
        if text != text.strip():
            fault(i, "blank space at an end")
        if kind in CODE_KINDS:
            size = len(re.findall(r"\w+|[^\w\s]", text))
            if not MIN_TOKENS <= size <= MAX_TOKENS:
                fault(i, f"{size} tokens, not {MIN_TOKENS} to {MAX_TOKENS}")
        else:
            size = len(text.split())
            if not MIN_WORDS <= size <= MAX_WORDS:
                fault(i, f"{size} words, not {MIN_WORDS} to {MAX_WORDS}")
        for word in sorted(set(BANNED.findall(text.lower()))):
            fault(i, f"banned word {word!r}")
        same = " ".join(text.lower().split())
        if same in seen:
            fault(i, f"same text as row {seen[same] + 1}")
        seen.setdefault(same, i)
        by_one[first_words(text, 1)].append(i)
        by_two[first_words(text, 2)].append(i)
        by_six[first_words(text, 6)].append(i)

    most = int(FIRST_WORD_SHARE * len(rows))
    for groups, limit, name in (
        (by_one, most, "first word"),
        (by_two, FIRST_TWO_ROWS, "first two words"),
        (by_six, 1, "first six words"),
    ):
        for words, members in sorted(groups.items()):
            if len(members) > limit:
                for i in members:
                    fault(i, f"{name} {' '.join(words)!r} in {len(members)} rows, at most {limit}")

    for name, part in (("all rows", rows), (f"the first {HEAD_ROWS} rows", rows[:HEAD_ROWS])):
        kinds = Counter({row["kind"]: 0 for row in rows})
        kinds.update(row["kind"] for row in part)
        if kinds and max(kinds.values()) > KIND_RATIO * min(kinds.values()):
            low, high = min(kinds, key=kinds.get), max(kinds, key=kinds.get)
            faults.append(f"{name}: {kinds[high]} of kind {high} but {kinds[low]} of kind {low}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="verify data/openings.jsonl and write nothing")
    args = parser.parse_args()

    if not args.check:
        rows = assemble()
        TARGET.write_bytes(render(rows).encode("utf-8"))
        print(f"{TARGET.relative_to(ROOT)}: {len(rows)} rows, {len({r['kind'] for r in rows})} kinds")
        return 0

    content = TARGET.read_bytes().decode("utf-8")
    rows = [json.loads(line) for line in content.split("\n") if line]
    faults = check(rows)
    if SOURCE.is_dir() and render(assemble()) != content:
        faults.append("data/openings.jsonl differs from what data/openings/ assembles to")
    for line in faults:
        print(line)
    if faults:
        print(f"{len(faults)} faults in {len(rows)} rows")
        return 1
    firsts = Counter(first_words(row["text"], 1) for row in rows)
    (word,), count = firsts.most_common(1)[0]
    print(
        f"{len(rows)} rows, {len({r['kind'] for r in rows})} kinds, "
        f"{len(firsts)} different first words, most common {word!r} in {count} rows"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
