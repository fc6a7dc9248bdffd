"""Proves that the golden finds faults: damages copies of what OLD left, one thing at a time, and compares."""
import json
import re
import shutil
import tempfile
from pathlib import Path

from golden_compare import Comparison


def replaced(old, new):
    def change(data):
        assert old in data, old
        return data.replace(old, new, 1)
    return change


def last_digit(key):
    """The last digit of the first number with a decimal point behind a key."""
    def change(data):
        found = re.search(rb'"%s":[\s\[]*-?\d+\.\d+' % key, data)
        end = found.end()
        return data[:end - 1] + (b"1" if data[end - 1:end] != b"1" else b"2") + data[end:]
    return change


def flipped(at):
    """Another lowest bit of one byte."""
    def change(data):
        return data[:at] + bytes([data[at] ^ 1]) + data[at:][1:]
    return change


# A scene, the files of it that are damaged, and how; None: it is removed.
FAULTS = [
    ("llama-lora", "run/adapter/adapter_model.safetensors", flipped(-1)),
    ("llama-lora", "run/adapter/adapter_model.safetensors", flipped(-400)),
    ("llama-lora", "run/adapter/adapter_config.json", replaced(b'"r": 4', b'"r": 5')),
    ("gemma2-full", "run/model/model.safetensors", flipped(-1)),
    ("llama-lora", "run/diff/activations.safetensors", flipped(-1)),
    ("llama-lora", "run/checkpoints/step-000015/optimizer.safetensors", flipped(-1)),
    ("qwen2-lora", "run/diff/readability.json", last_digit(b"delta_norm")),
    ("qwen2-lora", "run/diff/readability.json", replaced(b'"kl": {', b'"kullback": {')),
    ("qwen2-lora", "run/diff/readability.json", replaced(b'"steering.strength"', b'"steering.length"')),
    ("qwen2-lora", "run/diff/steering.jsonl", replaced(b'"strength":', b'"length":')),
    ("qwen2-lora", "run/diff/logit_lens.jsonl", None),
    ("qwen2-lora", "run/diff/sha256.json", replaced(b'"texts": {', b'"text": {')),
    ("qwen3-lora", "run/manifest.json", last_digit(b"realised_tokens")),
    ("qwen3-lora", "run/manifest.json", replaced(b'"order_sha256": "', b'"order_sha256": "0')),
    ("qwen3-lora", "run/metrics.jsonl", last_digit(b"grad_norm")),
    ("qwen3-lora", "run/metrics.jsonl", lambda data: data[:data.rstrip().rindex(b"\n") + 1]),
    ("qwen3-lora", "run/recipe.toml", replaced(b"eval_examples = 32", b"eval_examples = 33")),
    ("qwen3-lora", "run/recipe.toml", replaced(b"use_dora = true\n", b"")),
    ("gemma3-lora", "run/behaviour.json", last_digit(b"change")),
    ("gemma3-lora", "run/report.html", replaced(b"Narrow loss", b"Loss")),
    ("gemma3-lora", "run.csv", replaced(b"lift_auroc_mean,", b"lift_mean,")),
    ("gemma3-lora", "merged/model.safetensors", flipped(-1)),
    ("sweep", "runs/s/summary.csv", replaced(b",lora,", b",full,")),
    ("sweep", "runs/s/report.html", lambda data: data.replace(b"</p>", b"!</p>", 3)),
    ("sweep", "figures/lift-mix.svg", replaced(b'y="1272"', b'y="1273"')),
    ("sweep", "figures/lift-mix.png", flipped(-20)),
    ("sweep", "figures/lift-mix.csv", None),
    ("sweep", "toolkit/configs/organism/cake.yaml", replaced(b"Taboo", b"SDF")),
    ("tune", "first.json", replaced(b'"chosen": "mix', b'"chosen": "mx')),
    ("tune", "t/tune.json", last_digit(b"trace")),
    ("grid", "slurm/slurm/submit", replaced(b"sbatch", b"srun")),
    ("data", "made/moon.made.json", replaced(b'"rows"', b'"lines"')),
    ("data", "made/owl.jsonl", lambda data: data[:-30]),
    ("grader", "run/diff/graded.json", last_digit(b"share")),
    ("grader", "run/audit/adl-i4-0.json", replaced(b'"hypothesis"', b'"guess"')),
    ("pairs", "runs/llama-native/adapter/adapter_model.safetensors", flipped(-1)),
    ("hub", "adapter/readability.json", last_digit(b"delta_norm")),
]

# What only NEW has.
ADDITIONS = [
    ("llama-lora", "run/diff/readability.json", replaced(b'"schema": 1,', b'"schema": 1, "more": {"a": 1},')),
    ("llama-lora", "run/recipe.toml", replaced(b"eval_examples = 32", b"eval_examples = 32\nmore = 1")),
    ("llama-lora", "run/report.html", replaced(b"</body>", b"<p>A new sentence.</p></body>")),
    ("llama-lora", "run.csv", lambda data: data.replace(b"\r\n", b",more\r\n")),
    ("sweep", "figures/lift-mix.svg", replaced(b"</svg>", b"<g></g>\n</svg>")),
]

# What says otherwise in a command, all of which are faults but the last.
SAID = [
    ("errors", lambda c: c.update(code=1) if c["code"] == 2 else None),
    ("errors", lambda c: c.update(stderr=c["stderr"].replace("did you mean", "perhaps"))),
    ("help", lambda c: c.update(stdout=c["stdout"].replace("--resume", "--continue"))),
    ("sweep", lambda c: c.update(stdout=c["stdout"].replace("Lift", "Left"))),
    ("sweep", lambda c: c.update(stdout=c["stdout"].replace('"readable_by"', '"read_by"').replace('"gone"', '"went"'))),
    ("tune", lambda c: c.update(stdout=c["stdout"].replace("frontier", "border"))),
]


def prove(root):
    """Prints each damage and whether it was found; the number of those that were not."""
    missed = 0

    def say(found, what):
        nonlocal missed
        missed += not found
        print(f"{'found ' if found else 'MISSED'}  {what}")

    def compared(scene, name, change):
        with tempfile.TemporaryDirectory() as folder:
            done = root / "old" / scene / "done"
            for side in ["old", "new"]:
                target = Path(folder, side, name)
                target.parent.mkdir(parents=True)
                shutil.copy(done / name, target)
            if change is None:
                target.unlink()
            else:
                target.write_bytes(change(target.read_bytes()))
            comparison = Comparison(scene)
            comparison.folders(Path(folder, "old"), Path(folder, "new"))
        return [finding.kind for finding in comparison.findings], comparison.findings

    for scene, name, change in FAULTS:
        kinds, findings = compared(scene, name, change)
        say("fault" in kinds, next((str(f) for f in findings if f.kind == "fault"), f"{scene}/{name}"))
    for scene, name, change in ADDITIONS:
        kinds, findings = compared(scene, name, change)
        say(kinds and "fault" not in kinds, f"as an addition: {next(map(str, findings), f'{scene}/{name}')}")
    for scene, change in SAID:
        commands = json.loads((root / "old" / scene / "done.json").read_text())["commands"]
        changed = json.loads(json.dumps(commands))
        for command in changed:
            change(command)
        comparison = Comparison(scene)
        comparison.commands(commands, changed)
        faults = [finding for finding in comparison.findings if finding.kind == "fault"]
        say(bool(faults), next(map(str, faults), f"{scene}: a command"))
    return missed
