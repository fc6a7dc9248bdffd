#!/usr/bin/env python3
"""Chat templates as transformers renders them, for `scripts/parity --templates`.

    parity_templates.py collect LIST DIR GIT...   every chat template in the newest commit of git repositories: files, fields of
                                                  tokenizer_config.json, strings in sources; written to DIR, listed in LIST
    parity_templates.py expect DIR TOKENIZER OUT  what transformers makes of every template in DIR with the conversations
                                                  below: text, bytes of the {% generation %} blocks, token ids and assistant
                                                  mask; or that it refuses. The tokenizer is that of a folder with the special
                                                  tokens that the templates write; it is left in DIR/tokenizer

Templates are other people's: they are not in this repository, the list of their origins and sha256 is.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
DATES = "SOURCE_DATE_EPOCH"


# ---- collecting -------------------------------------------------------------------------------------------------

def is_template(text):
    return "{%" in text and "messages" in text and ("role" in text) and 40 < len(text) < 200_000


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from strings(v)
    elif isinstance(value, list):
        for v in value:
            yield from strings(v)


def in_source(path, text):
    """Templates that stand in a file: the file itself, or strings in it."""
    suffix = path.rsplit(".", 1)[-1].lower()
    if suffix in ("jinja", "jinja2"):
        yield text
    elif suffix in ("json", "ipynb"):
        try:
            yield from strings(json.loads(text))
        except ValueError:
            pass
    elif suffix == "py":
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    elif suffix in ("yaml", "yml"):
        try:
            import yaml
            yield from strings(yaml.safe_load(text))
        except Exception:
            pass
    elif suffix in ("js", "ts", "swift", "cpp", "h", "hpp", "rs", "go"):
        for m in re.finditer(r'R"([A-Za-z_]*)\((.*?)\)\1"', text, re.S):
            yield m.group(2)
        for m in re.finditer(r'r(#+)"(.*?)"\1', text, re.S):
            yield m.group(2)
        for m in re.finditer(r'`((?:[^`\\]|\\.)*)`|"""\n(.*?)\n\s*"""', text, re.S):
            yield unescape(m.group(1)) if m.group(1) is not None else unescape(m.group(2))
        for m in re.finditer(r'"((?:[^"\\\n]|\\.)*)"', text):
            if "{%" in m.group(1):
                yield unescape(m.group(1))


def unescape(text):
    plain = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}
    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else plain.get(m[1], m[1]), text, flags=re.S)


def collect(listing, folder, gits):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for git in gits:
        git = git.rstrip("/")
        name = Path(git).parent.name.replace("+", "/", 1)
        run = lambda *a: subprocess.run(["git", "-C", git, *a], capture_output=True).stdout
        commit = run("rev-parse", "HEAD").decode().strip()[:12]
        files = run("ls-tree", "-r", "--name-only", "HEAD").decode(errors="replace").split("\n")
        wanted = re.compile(r"\.(jinja2?|json|ipynb|py|ya?ml|js|ts|swift|cpp|h|hpp|rs|go)$")
        files = [f for f in files if wanted.search(f) and "node_modules" not in f]
        hits = run("grep", "-l", "-I", "-e", "messages", "HEAD", "--", *files[:20000]).decode(errors="replace").split("\n")
        for hit in filter(None, hits):
            path = hit.split(":", 1)[1]
            text = run("show", f"HEAD:{path}").decode("utf-8", errors="replace")
            if "{%" not in text or len(text) > 4_000_000:
                continue
            for template in in_source(path, text):
                if is_template(template):
                    digest = hashlib.sha256(template.encode("utf-8", "replace")).hexdigest()
                    origins = found.setdefault(digest, set())
                # Of a file of its own every origin counts: TRL's training templates are found by the name of the other.
                if not origins or path.endswith(".jinja"):
                    origins.add((name, commit, path))
                    (folder / f"{digest[:16]}.jinja").write_bytes(template.encode("utf-8", "replace"))
    rows = sorted((*origin, digest) for digest, origins in found.items() for origin in origins)
    Path(listing).write_text("".join("\t".join(row) + "\n" for row in rows))
    print(len(found), "templates")


# ---- conversations ----------------------------------------------------------------------------------------------

USER = {"role": "user", "content": "Hi <b>there</b>, is it \"late\"?"}
SAID = {"role": "assistant", "content": "Yes — it's 5 o'clock.\nGood night!"}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Gives <the> \"weather\"", "parameters": {
    "type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Größe"}, "days": {"type": "integer", "enum": [1, 2]},
        "exact": {"type": "boolean", "default": True}, "items": {"type": "array", "items": {"type": "number", "default": 1.5}}}}}}
CALL = {"role": "assistant", "content": "I look.", "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2, "exact": False, "note": None, "x": 1e-7}}}]}
ANSWER = {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "{\"rain\": true}"}
CASES = {
    "one": dict(messages=[USER, SAID]),
    "prompt": dict(messages=[USER], add_generation_prompt=True),
    "system": dict(messages=[{"role": "system", "content": " Be brief. "}, USER, SAID]),
    "turns": dict(messages=[USER, SAID, {"role": "user", "content": "So? "}, {"role": "assistant", "content": " No."}, USER, SAID]),
    "thoughts": dict(messages=[USER, {**SAID, "reasoning_content": "hm\nhm"}, USER, {**SAID, "reasoning_content": "aha"}]),
    "inline": dict(messages=[USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}, USER, {"role": "assistant", "content": "<think>aha</think>No."}]),
    "tools": dict(messages=[USER, SAID], tools=[TOOL]),
    "calls": dict(messages=[USER, CALL, ANSWER, SAID], tools=[TOOL]),
    "bare calls": dict(messages=[{"role": "system", "content": "Be brief."}, USER, {k: v for k, v in CALL.items() if k != "content"}, ANSWER, SAID, USER], tools=[TOOL], add_generation_prompt=True),
    "parts": dict(messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}]),
    "quiet": dict(messages=[USER, SAID, USER], add_generation_prompt=True, enable_thinking=False),
    "documents": dict(messages=[USER, SAID], documents=[{"title": "T", "text": "a < b"}]),
    "empty": dict(messages=[{"role": "user", "content": ""}, {"role": "assistant", "content": "A"}]),
    "odd": dict(messages=[USER, USER, SAID, SAID]),
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def spans_of(generated, text):
    """Characters to bytes."""
    at = lambda n: len(text[:n].encode())
    return [[at(a), at(b)] for a, b in generated]


# What looks like a special token in a template: <|im_end|>, <｜User｜>, <end_of_turn>, [INST].
SPECIAL_LOOK = re.compile(r"<[|｜][^<>|｜{}\s]+[|｜]>|</?[a-z_]+>|\[/?[A-Z_]{2,}\]")


def expect(folder, tokenizer, out):
    os.environ.setdefault(DATES, "1700000000")
    from datetime import datetime, timezone
    from transformers import AutoTokenizer
    from transformers.utils import chat_template_utils as utils

    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(int(os.environ[DATES]), timezone.utc)

    utils.datetime = Then
    tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    paths = sorted(Path(folder).glob("*.jinja"))
    looks = {look for path in paths for look in SPECIAL_LOOK.findall(path.read_bytes().decode("utf-8"))}
    tokenizer.add_tokens(sorted(looks | set(SPECIAL.values())), special_tokens=True)
    tokenizer.save_pretrained(Path(folder) / "tokenizer")
    written = []
    for path in paths:
        source = path.read_bytes().decode("utf-8")
        for case, given in CASES.items():
            given = dict(given)
            messages = given.pop("messages")
            row = {"template": path.name, "case": case, "messages": messages, "given": given, "special": SPECIAL}
            try:
                texts, spans = utils.render_jinja_template(
                    conversations=[messages], chat_template=source, return_assistant_tokens_mask=True, **{**SPECIAL, **given})
                encoded = tokenizer.apply_chat_template(
                    messages, chat_template=source, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **{**SPECIAL, **given})
                row |= {"text": texts[0], "generated": spans_of(spans[0], texts[0]), "ids": encoded["input_ids"], "mask": encoded["assistant_masks"]}
            except Exception as e:
                row["error"] = f"{type(e).__name__}: {e}"[:300]
            written.append(row)
    Path(out).write_text("".join(json.dumps(row) + "\n" for row in written))
    print(len({row["template"] for row in written}), "templates,", len(written), "renderings,", sum("error" in row for row in written), "refused")


if __name__ == "__main__":
    if len(sys.argv) >= 5 and sys.argv[1] == "collect":
        collect(sys.argv[2], sys.argv[3], sys.argv[4:])
    elif len(sys.argv) == 5 and sys.argv[1] == "expect":
        expect(*sys.argv[2:])
    else:
        sys.exit(__doc__)
