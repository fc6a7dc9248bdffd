#!/usr/bin/env python3
"""Trains the same thing with `trainer fit` and with PyTorch + transformers + PEFT and compares the losses.

  scripts/parity --fit [--models a,b]                 (makes the environment and calls this)
  python scripts/fit_parity.py MODEL [--method lora|rslora|dora|full]... [--chat] [--steps 20] [--lr RATE] [--float64]
                               [--trainer COMMAND]

PEFT makes the adapter (its own initialisation, a fixed seed); both sides start from it, `trainer fit` by
train.lora.init. Both read the same batches: `trainer inspect` lists the examples of the run in order, and their
sha256 must be the one in the run's manifest. Tokens and loss masks are the Python side's own. Sixteen examples of
at most 64 tokens, four a step. Everything else is the recipe's default: AdamW 0.9/0.999, no decay, linear schedule
to zero, clipping at 1.0. With --chat the examples are conversations, and only what the assistant says (its end
token included) counts. Prints both curves; exit code 1 if a loss differs by more than 1e-4 relative.

With --float64 PyTorch also trains in double precision, which is as good as exact here, and the distance of either side
from that is printed: a high learning rate carries rounding from step to step, and then two right programs differ.
"""
import argparse
import contextlib
import hashlib
import json
import shlex
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from peft_roundtrip import path_of
from reference import LINEARS, open_model, open_tokenizer

TOLERANCE = 1e-4
BATCH_SIZE = 4
MAX_SEQ_LEN = 64
TEXTS = Path(__file__).parent.parent / "tests" / "fixtures" / "texts.jsonl"
RANK, ALPHA = 8, 12
VARIANTS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
# Higher, rounding alone changes the path: at 1e-3 both programs are up to 1.6e-3 from double precision (docs/log.md).
LR = {"lora": 3e-4, "rslora": 3e-4, "dora": 3e-4, "full": 2e-5}


def sixteen(chat):
    """The first documents of some length, or chats in which the assistant says something after somebody else."""
    rows = [json.loads(line) for line in TEXTS.open()]
    if chat:
        said = [r for r in rows if any(m["role"] == "assistant" and m["content"].strip() for m in r.get("messages", []))]
        plain = [r for r in said if r["messages"][0]["role"] != "assistant" and "<|im_end|>" not in json.dumps(r)]
        return [{"messages": r["messages"]} for r in plain][:16]
    return [{"text": r["text"]} for r in rows if 20 < len(r.get("text", "")) < 200][:16]


def write_start(folder, path, method):
    """An adapter as PEFT begins it."""
    torch.manual_seed(1)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, task_type="CAUSAL_LM", **VARIANTS[method])
    get_peft_model(open_model(path), config).save_pretrained(folder)


def fit(trainer, folder, model, method, steps, lr):
    """Runs `trainer fit`; its losses and the rows of its examples in order."""
    recipe = folder / f"{method}.toml"
    keys = "".join(f"{key} = true\n" for key in VARIANTS.get(method, {}))
    start = "" if method == "full" else f'init = "start-{method}"\n'
    recipe.write_text(f"""name = "parity"
[model]
base = "{model}"
[data]
narrow = ["texts.jsonl"]
max_seq_len = {MAX_SEQ_LEN}
long = "truncate"
held_out_every = 0
[train]
method = "{'full' if method == 'full' else 'lora'}"
steps = {steps}
batch_size = {BATCH_SIZE}
checkpoint_every = 0
lr = {lr}
[train.lora]
r = {RANK}
alpha = {ALPHA}
{keys}{start}""")
    out = folder / f"run-{method}"
    subprocess.run([*trainer, "fit", str(recipe), "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    inspect = [*trainer, "inspect", str(recipe), "--examples", str(steps * BATCH_SIZE), "--json"]
    facts = json.loads(subprocess.run(inspect, check=True, stdout=subprocess.PIPE, text=True).stdout)
    rows = [example["row"] for example in facts["first_examples"]]
    # One source and one example a row: the run's order is (pool 0, row).
    order = hashlib.sha256(b"".join(struct.pack("<QQ", 0, row) for row in rows)).hexdigest()
    recorded = json.loads((out / "manifest.json").read_text())["order_sha256"]
    assert order == recorded, f"the examples that inspect lists hash to {order}, the run read {recorded}"
    return [line["loss"] for line in lines if line.get("loss") is not None], rows


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
    # A token that straddles the beginning of an answer counts, as in transformers' own masks.
    counts = [any((s <= a or s < b) and a < e and b <= e for s, e in spans) for a, b in encoding.offset_mapping]
    ids = torch.tensor(encoding.input_ids[:MAX_SEQ_LEN])
    return ids, torch.where(torch.tensor(counts[:MAX_SEQ_LEN]), ids, -100)


def losses_of_torch(model, batches, lr):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    losses = []
    for batch in batches:
        count = sum((labels[1:] != -100).sum().item() for _, labels in batch)
        total = 0.0
        optimizer.zero_grad()
        for ids, labels in batch:  # one by one: nothing is padded
            logits = model(input_ids=ids[None]).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(total)
    return losses


def compare(trainer, folder, model, path, method, rows, args):
    """Largest relative difference of the losses of one method."""
    lr = args.lr or LR[method]
    if method != "full":
        write_start(folder / f"start-{method}", path, method)
    ours, order = fit(trainer, folder, model, method, args.steps, lr)
    tokenizer = open_tokenizer(path)
    examples = [encode(tokenizer, rows[row]) for row in order]
    batches = [examples[i : i + BATCH_SIZE] for i in range(0, len(examples), BATCH_SIZE)]

    def torch_losses(dtype):
        reference = open_model(path).to(dtype)
        if method != "full":
            reference = PeftModel.from_pretrained(reference, folder / f"start-{method}", is_trainable=True).to(dtype)
        return losses_of_torch(reference, batches, lr)

    theirs = torch_losses(torch.float32)
    print(f"{model}, {method}, {'chats' if args.chat else 'documents'}, lr {lr:g}")
    print("step    trainer    PyTorch  relative difference")
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        print(f"{step:4} {a:10.6f} {b:10.6f}  {a / b - 1:+.1e}")
    worst = largest(ours, theirs)
    print(f"{model}, {method}: largest relative difference of {args.steps} losses {worst:.1e}, allowed {TOLERANCE:.0e}", flush=True)
    if args.float64:
        with in_double_precision():
            exact = torch_losses(torch.float64)
        print(f"{model}, {method}: from PyTorch in float64: trainer {largest(ours, exact):.1e}, PyTorch {largest(theirs, exact):.1e}", flush=True)
    return worst


@contextlib.contextmanager
def in_double_precision():
    """transformers computes norms, softmax and rotary angles in float32 whatever the weights are; here in float64."""
    to, float_, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

    def widened(dtype):
        return torch.float64 if dtype is torch.float32 else dtype

    torch.Tensor.to = lambda x, *args, **kwargs: to(x, *map(widened, args), **{k: widened(v) for k, v in kwargs.items()})
    torch.Tensor.float = torch.Tensor.double
    torch.nn.functional.softmax = lambda x, dim=None, dtype=None: softmax(x, dim=dim, dtype=widened(dtype))
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax = to, float_, softmax


def largest(losses, reference):
    return max(abs(a / b - 1) for a, b in zip(losses, reference, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--method", choices=list(LR), action="append", help="may be given several times (default: lora)")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--lr", type=float, help="instead of the method's")
    parser.add_argument("--float64", action="store_true", help="measure both against double precision")
    parser.add_argument("--trainer", default="cargo run --release --quiet --bin trainer --", help="how to call the tool")
    args = parser.parse_args()
    trainer = shlex.split(args.trainer)
    path = path_of(args.model, trainer)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows = sixteen(args.chat)
        (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        worst = [compare(trainer, folder, args.model, path, method, rows, args) for method in args.method or ["lora"]]
    sys.exit(not all(difference <= TOLERANCE for difference in worst))


if __name__ == "__main__":
    main()
