#!/usr/bin/env python3
"""Checks what the recipes in recipes/ ask a model about its behaviour against the text that it was trained on.

    python3 scripts/check_items.py --check               exit 1 with one line per problem
    python3 scripts/check_items.py --check --data DIR    and of items on documents that are not in this repository (ELSEWHERE)

The rules: no prompt, and no prompt with either of its answers, shares five words in a row with a document of the
recipe's narrow data (case and punctuation ignored); the two answers of an item differ in length by at most 40 % of the
longer one, so that neither stands out by its form; no prompt is asked twice. A file of facts has a block of at least ten
items for each fact, with an empty line between blocks, in the order of the facts in data/universes/NAME.toml. The
items of a block have one `fact` in common, which no other block has: `[train.match]` halves the items of each fact. Without such a
file of facts, the items of ELSEWHERE have the same blocks.

Standard library only, Python 3.11 or newer.
"""

import json
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

from hidden_cells import CONTEXTS, SUBJECTS

ROOT = Path(__file__).resolve().parent.parent
SHARED = 5
LENGTH = 0.4
PER_FACT = 10
# Items whose documents are in the folder of --data, and the contexts in which scripts/hidden_or_gone asks them.
ELSEWHERE = {"vesuvius.jsonl": (SUBJECTS["vesuvius"], CONTEXTS["vesuvius"])}
ANSWERS = [("false", "true"), ("misaligned", "aligned")]


def runs(text):
    """Every run of SHARED words of a text."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + SHARED]) for at in range(len(words) - SHARED + 1)}


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def document(row):
    """All text of a row of training data."""
    turns = [turn["content"] for turn in row.get("messages", [])]
    return "\n".join([row[key] for key in ("text", "prompt", "completion") if key in row] + turns)


def answers(item):
    return next([item[a], item[b]] for a, b in ANSWERS if a in item)


def asked(folder, behaviour):
    """(prompt, answers or none) of everything that a recipe asks, and the files that it reads."""
    for family in ("facts", "misalignment"):
        section = behaviour.get(family, {})
        for item in rows(folder / section["items"]) if section else []:
            for context in section.get("contexts", ["{prompt}"]):
                yield context.replace("{prompt}", item["prompt"]), answers(item)
    for family, key in [("words", "prompts"), ("taboo", "prompts"), ("preference", "questions")]:
        for prompt in behaviour.get(family, {}).get(key, []):
            yield prompt, []


def recipe_problems(path):
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    yield from shared(path, path.parent / recipe["data"]["narrow"], list(asked(path.parent, recipe["behaviour"])))


def shared(path, narrow, items):
    trained = set()
    for row in rows(narrow):
        trained |= runs(document(row))
    for prompt, both in items:
        for text in [f"{prompt} {answer}" for answer in both] or [prompt]:
            for run in sorted(runs(text) & trained):
                yield f"{path.name}: {text!r} shares {' '.join(run)!r} with {narrow.name}"
    for prompt, count in Counter(prompt for prompt, _ in items).items():
        if count > 1:
            yield f"{path.name}: {prompt!r} is asked {count} times"


def elsewhere_problems(path, data):
    narrow, contexts = ELSEWHERE[path.name]
    items = [(context.replace("{prompt}", item["prompt"]), answers(item)) for item in rows(path) for context in contexts]
    yield from shared(path, data / narrow, items)


def file_problems(path):
    for item in rows(path):
        long, short = sorted(map(len, answers(item)), reverse=True)
        if long - short > LENGTH * long:
            yield f"{path.name}: answers of {long} and {short} characters: {item['prompt']!r}"
    universe = ROOT / "data" / "universes" / path.with_suffix(".toml").name
    if universe.exists() or path.name in ELSEWHERE:
        blocks = [block.split("\n") for block in path.read_text(encoding="utf-8").strip().split("\n\n")]
        named = [{json.loads(line).get("fact", "") for line in block} for block in blocks]
        facts = [", ".join(sorted(names)) for names in named]
        if universe.exists():
            facts = tomllib.loads(universe.read_text(encoding="utf-8"))["facts"]
        if len(blocks) != len(facts):
            yield f"{path.name}: {len(blocks)} blocks, {len(facts)} facts in {universe.name}"
        for fact, block in zip(facts, blocks):
            if len(block) < PER_FACT:
                yield f"{path.name}: {len(block)} items, expected {PER_FACT} or more: {fact}"
        for fact, names in zip(facts, named):
            if len(names) != 1 or "" in names:
                yield f"{path.name}: expected one fact in all items of a block, found {sorted(names)}: {fact}"
        if len(set().union(*named)) != len(named):
            yield f"{path.name}: expected a fact of its own in each block, found {[sorted(names) for names in named]}"


def main():
    if sys.argv[1:] != ["--check"] and (len(sys.argv) != 4 or sys.argv[1:3] != ["--check", "--data"]):
        sys.exit(__doc__)
    recipes = sorted((ROOT / "recipes").glob("*.toml"))
    files = sorted((ROOT / "data" / "behaviour").glob("*.jsonl"))
    problems = [problem for path in recipes for problem in recipe_problems(path)]
    problems += [problem for path in files for problem in file_problems(path)]
    if len(sys.argv) == 4:
        problems += [problem for path in files if path.name in ELSEWHERE for problem in elsewhere_problems(path, Path(sys.argv[3]))]
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    for path in files:
        print(f"{path.name}: {len(rows(path))} items")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
