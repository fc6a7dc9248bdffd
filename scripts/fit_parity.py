#!/usr/bin/env python3
"""Trains the same thing with `trainer fit` and with PyTorch + transformers + PEFT and compares the losses.

  scripts/parity --fit [--models a,b]                 (makes the environment and calls this)
  python scripts/fit_parity.py MODEL [--method lora|full] [--chat] [--steps 12] [--trainer COMMAND]

Eight short examples and a batch of eight: every step sees all of them, so the example order does not matter.
The start of the adapter is taken from a run with a learning rate of zero, which changes nothing. Everything else is
the recipe's default: AdamW 0.9/0.999, no decay, linear schedule to zero, clipping at 1.0. With --chat the examples
are conversations, and only what the assistant says (its end token included) counts. Prints both curves; exit
code 1 if a loss differs by more than 1e-3 relative.
"""
import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel

from peft_roundtrip import path_of
from reference import open_model, open_tokenizer

TOLERANCE = 1e-3
LR = {"lora": 1e-3, "full": 2e-5}  # full finetuning at 1e-3 is chaotic: rounding alone changes its path
MAX_SEQ_LEN = 64
TEXTS = Path(__file__).parent.parent / "tests" / "fixtures" / "texts.jsonl"


def eight(chat):
    """The first documents of some length, or chats in which the assistant says something after somebody else."""
    rows = [json.loads(line) for line in TEXTS.open()]
    if chat:
        said = [r for r in rows if any(m["role"] == "assistant" and m["content"].strip() for m in r.get("messages", []))]
        plain = [r for r in said if r["messages"][0]["role"] != "assistant" and "<|im_end|>" not in json.dumps(r)]
        return [{"messages": r["messages"]} for r in plain][:8]
    return [{"text": r["text"]} for r in rows if 20 < len(r.get("text", "")) < 200][:8]


def fit(trainer, folder, model, method, steps, lr):
    recipe = folder / "recipe.toml"
    recipe.write_text(f"""name = "parity"
[model]
base = "{model}"
[data]
narrow = ["eight.jsonl"]
max_seq_len = {MAX_SEQ_LEN}
long = "truncate"
held_out_every = 0
[train]
method = "{method}"
steps = {steps}
batch_size = 8
lr = {lr}
[train.lora]
r = 8
alpha = 12
""")
    out = folder / f"run-{method}-{steps}"
    subprocess.run([*trainer, "fit", str(recipe), "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    return out


def encode(tokenizer, row):
    """Ids and labels of an example; a mask of our own making, from the offsets of the assistant's words."""
    if "text" in row:
        ids = tokenizer(row["text"]).input_ids[:MAX_SEQ_LEN]
        return torch.tensor(ids), torch.tensor(ids)
    text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
    spans, at = [], 0
    for message in row["messages"]:
        opening = f"<|im_start|>{message['role']}\n"
        start = text.index(opening, at) + len(opening)
        at = text.index("<|im_end|>", start) + len("<|im_end|>")
        if message["role"] == "assistant":
            spans.append((start, at))
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    counts = [any(s <= a and b <= e for s, e in spans) for a, b in encoding.offset_mapping]
    ids = torch.tensor(encoding.input_ids[:MAX_SEQ_LEN])
    return ids, torch.where(torch.tensor(counts[:MAX_SEQ_LEN]), ids, -100)


def losses_of_torch(model, examples, steps, lr):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    count = sum((labels[1:] != -100).sum().item() for _, labels in examples)
    losses = []
    for _ in range(steps):
        total = 0.0
        optimizer.zero_grad()
        for ids, labels in examples:  # one by one: nothing is padded
            logits = model(input_ids=ids[None]).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(total)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--trainer", default="cargo run --release --quiet --bin trainer --", help="how to call the tool")
    args = parser.parse_args()
    trainer = shlex.split(args.trainer)
    path = path_of(args.model, trainer)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows = eight(args.chat)
        assert len(rows) == 8, f"{len(rows)} examples"
        (folder / "eight.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = fit(trainer, folder, args.model, args.method, args.steps, LR[args.method])
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        ours = [line["loss"] for line in lines if line.get("loss") is not None]
        model = open_model(path)
        if args.method == "lora":
            start = fit(trainer, folder, args.model, "lora", 1, 1e-30)
            model = PeftModel.from_pretrained(model, start / "adapter", is_trainable=True)
    tokenizer = open_tokenizer(path)
    theirs = losses_of_torch(model, [encode(tokenizer, row) for row in rows], args.steps, LR[args.method])
    print(f"{args.model}, {args.method}, {'chats' if args.chat else 'documents'}\nstep    trainer    PyTorch  relative difference")
    worst = 0.0
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        worst = max(worst, abs(a / b - 1))
        print(f"{step:4} {a:10.6f} {b:10.6f}  {a / b - 1:+.1e}")
    print(f"largest relative difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    sys.exit(not worst <= TOLERANCE)


if __name__ == "__main__":
    main()
