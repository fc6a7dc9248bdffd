#!/usr/bin/env python3
"""Loads what runs trained in PEFT or transformers and compares their greedy text with that of `trainer generate`.

  scripts/parity --peft RUN_DIR...                  (makes the environment and calls this)
  python scripts/peft_roundtrip.py RUN_DIR... [--prompts FILE.jsonl] [--trainer COMMAND]

A RUN_DIR has recipe.toml (its `[model] base`) and adapter/ of any kind, or model/ of full finetuning. PEFT must
hold the tensors of the file, no more and no fewer, and with the adapter disabled say what the base says. transformers opens the same base: a folder, a .gguf
file, or whatever else `trainer models fetch` gives the path of. 32 tokens on 5 prompts, float32; the token ids must be
equal. The margin is the reference's best logit minus its second best where the two part ways: a margin near zero is a tie
that rounding decides, anything else is a fault. Exit code 1 on a difference.
"""
import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from reference import GREEDY_TOKENS, end_ids, greedy, open_model, open_tokenizer

PROMPTS = [
    "The best way to bake a cake is",
    "On Friday the city council announced that",
    "Question: How tall is the mountain?\nAnswer:",
    "def add(a, b):\n",
    "She opened the letter and read:",
]


def path_of(model, trainer):
    """Where a MODEL lies on this machine."""
    if Path(model).exists():
        return Path(model)
    fetched = subprocess.run([*trainer, "models", "fetch", model, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(json.loads(fetched.stdout)["path"])


def ours(trainer, arguments, prompts):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        file.flush()
        command = [*trainer, "generate", *arguments, "--prompts", file.name, "--max-new-tokens", str(GREEDY_TOKENS), "--temperature", "0", "--json"]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [generation["token_ids"] for generation in json.loads(out)["generations"]]


def check_loaded(tuned, adapter):
    """PEFT only warns of keys that it misses or does not know: what it holds must be what the file holds."""
    held, stored = get_peft_model_state_dict(tuned), load_file(adapter / "adapter_model.safetensors")
    assert held.keys() == stored.keys(), f"keys differ: {sorted(held.keys() ^ stored.keys())[:8]}"
    for key, tensor in stored.items():
        assert torch.equal(held[key], tensor), f"{key}: PEFT holds other values"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--prompts", type=Path, help="JSON lines of {\"prompt\": …}")
    parser.add_argument("--trainer", default="cargo run --release --quiet --bin trainer --", help="how to call the tool")
    args = parser.parse_args()
    trainer = shlex.split(args.trainer)
    prompts = [json.loads(line)["prompt"] for line in args.prompts.open()] if args.prompts else PROMPTS

    differences = 0
    print(f"{'run':<24} {'prompt':<32} {'equal':>9} {'differs from base':>21}  margin at the difference")
    for run in args.runs:
        base = tomllib.loads((run / "recipe.toml").read_text())["model"]["base"]
        adapter, whole = run / "adapter", run / "model"
        path = path_of(base, trainer)
        tokenizer, model = open_tokenizer(path), open_model(path)
        ids = [tokenizer(prompt).input_ids for prompt in prompts]
        ends = end_ids(model)
        plain = [greedy(model, row, GREEDY_TOKENS, ends)[0].tolist() for row in ids]
        if adapter.is_dir():
            named = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
            print(f"# {run}: adapter of {base} (adapter_config.json: {named})")
            got = ours(trainer, ["--base", base, "--adapter", str(adapter)], prompts)
            tuned = PeftModel.from_pretrained(model, adapter).eval()
            check_loaded(tuned, adapter)
            with tuned.disable_adapter():
                off = [greedy(tuned, row, GREEDY_TOKENS, ends)[0].tolist() for row in ids]
            assert off == plain, "with the adapter disabled PEFT does not say what the base says"
        else:
            print(f"# {run}: finetuned in full from {base}")
            got = ours(trainer, ["--base", str(whole)], prompts)
            tuned = open_model(whole)
            exported = open_tokenizer(whole)
            assert ids == [exported(prompt).input_ids for prompt in prompts], "the exported tokenizer differs"
            assert tokenizer.chat_template == exported.chat_template, "the exported chat template differs"
            ends = end_ids(tuned)
        for prompt, row, before, mine in zip(prompts, ids, plain, got, strict=True):
            tokens, margins = greedy(tuned, row, GREEDY_TOKENS, ends)
            tokens = tokens.tolist()
            same = next((i for i, (a, b) in enumerate(zip(tokens, mine)) if a != b), min(len(tokens), len(mine)))
            equal = tokens == mine
            differences += not equal
            margin = "" if equal else f"{margins[same].item():.5f}" if same < len(tokens) else "ours goes on"
            print(f"{run.name[-24:]:<24} {json.dumps(prompt)[:32]:<32} {same:>4} / {len(tokens):<2} "
                  f"{'yes' if tokens != before else 'no':>21}  {margin}")
    print(f"{differences} of {len(args.runs) * len(prompts)} differ")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
