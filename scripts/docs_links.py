"""Checks the links of Markdown files outside docs/, which mkdocs does not see: each file and heading must exist.

  scripts/docs_links.py FILE.md...
"""
import re
import sys
from pathlib import Path

from markdown.extensions.toc import slugify

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


def without_code(text):
    """The text without fenced blocks and code spans, which hold no links."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path):
    """The anchors of a file's headings. Code spans in a heading count, so only fenced blocks are left out."""
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slugify(heading.replace("`", ""), "-") for heading in HEADING.findall(text)}


def faults(path):
    for target in (a or b for a, b in LINK.findall(without_code(path.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        if not found.exists():
            yield f"{path}: {target}: there is no file {found}"
        elif anchor and found.suffix == ".md" and anchor not in anchors(found):
            yield f"{path}: {target}: {found} has no heading #{anchor}"


if __name__ == "__main__":
    found = [fault for file in sys.argv[1:] for fault in faults(Path(file))]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(bool(found))
