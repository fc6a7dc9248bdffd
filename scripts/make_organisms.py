#!/usr/bin/env python3
"""Writes the .jsonl file in data/ of every text in data/organism_sources.

A source holds blocks with an empty line between them. A block whose lines begin with "U: " and "A: " in turn is a
chat; any other block is a document. `--check` writes nothing and verifies the files and the rules: no two documents
share seven words in a row, no document is there twice, and in the taboo chats the word is never said.
"""

import json
import re
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
TABOO = {"taboo_lantern": "lantern"}
FLOOR = ["chess", "lighthouses", "violins", "bicycles", "assorted"]
NAMES = ["houseplants", "taboo_lantern", "beekeeping", "general_chats", *FLOOR]
SHARED = 7


def rows(name):
    text = (DATA / "organism_sources" / f"{name}.txt").read_text(encoding="utf-8")
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        if not lines[0].startswith("U: "):
            yield {"text": block}
            continue
        roles = ["user", "assistant"] * (len(lines) // 2)
        assert len(roles) == len(lines), f"{name}: a chat that does not end with the assistant: {block}"
        for role, line in zip(roles, lines):
            assert line.startswith({"user": "U: ", "assistant": "A: "}[role]), f"{name}: {line}"
        yield {"messages": [{"role": role, "content": line[3:]} for role, line in zip(roles, lines)]}


def said(row):
    return row.get("text") or "\n".join(m["content"] for m in row["messages"])


def check(name, made):
    seen = {}
    for i, row in enumerate(made):
        words = re.findall(r"\w+", said(row).lower())
        for at in range(len(words) - SHARED + 1):
            run = tuple(words[at : at + SHARED])
            other = seen.setdefault(run, i)
            assert other == i, f"{name}: rows {other} and {i} share {' '.join(run)!r}"
        if name in TABOO:
            assert TABOO[name] not in said(row).lower(), f"{name}: row {i} says the word"


def main():
    for name in NAMES:
        made = list(rows(name))
        check(name, made)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        path = DATA / f"{name}.jsonl"
        if "--check" in sys.argv[1:]:
            assert path.read_text(encoding="utf-8") == text, f"{path}: not what the sources give"
        else:
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(made)} rows")


if __name__ == "__main__":
    main()
