#!/usr/bin/env python3
"""Computes the analysis of a LoRA run once more with PyTorch, transformers and PEFT, and compares it with what
`trainer diff` wrote.

  scripts/parity --adl RUN_DIR...                  (makes the environment and calls this)
  python scripts/reference_adl.py RUN_DIR... [--diff DIR] [--trainer COMMAND]

A RUN_DIR has recipe.toml, adapter/ and diff/ (--diff: another folder with readability.json and
activations.safetensors, of one run). The base is what transformers opens: a folder, a .gguf file, or the path that
`trainer models fetch` gives. Everything is float32 on the CPU with eager attention, one sequence at a time, never padded;
an intervention is a forward hook on the block. What stands in readability.json is compared:

  mean_difference       v_p: relative distance of the vectors
  expected_norm         relative
  logit_lens            how many of the top tokens agree, as a set, in the worst position
  patchscope            the same, at the scale that trainer chose
  causal, bias_share, kl, interpolation   losses and divergences on documents (chats are left out), largest difference in nats

Prints one JSON document a run: every value of the reference, and `comparison`, a list of {name, difference, allowed}.
Exit code 1 if a difference is more than is allowed. Ties decide about the last of the top tokens, so one of them may differ.
"""
import argparse
import contextlib
import json
import shlex
import sys
import tomllib
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file

from peft_roundtrip import path_of
from reference import open_model, open_tokenizer

WORDS = [["man", "1135", "hello"], ["bear", "42", "blue"], ["921", "target", "anna"]]
NATS, RELATIVE = 1e-3, 1e-4


# ---- models ---------------------------------------------------------------------------------------------

class Models:
    """Base and tuned model: one PEFT model with its adapter off and on."""

    def __init__(self, base, adapter, layer):
        self.model = PeftModel.from_pretrained(open_model(base), adapter).eval()
        self.inner = self.model.base_model.model
        self.block = self.inner.model.layers[layer]
        self.layer = layer

    def side(self, name):
        return self.model.disable_adapter() if name == "base" else contextlib.nullcontext()

    @contextlib.contextmanager
    def scaled(self, factor):
        """The adapter's low-rank terms times a factor."""
        layers = [m for m in self.model.modules() if hasattr(m, "scaling") and isinstance(m.scaling, dict)]
        before = [dict(m.scaling) for m in layers]
        for module in layers:
            module.scaling = {name: s * factor for name, s in module.scaling.items()}
        yield
        for module, scaling in zip(layers, before):
            module.scaling = scaling

    @torch.no_grad()
    def run(self, side, ids, edit=None):
        """Logits (seq, vocab) and the block's output (seq, hidden) before `edit`, which changes the latter."""
        seen = []

        def hook(_module, _args, output):
            h = output[0] if isinstance(output, tuple) else output
            seen.append(h[0].clone())
            if edit is None:
                return None
            h = edit(h[0])[None]
            return (h, *output[1:]) if isinstance(output, tuple) else h

        handle = self.block.register_forward_hook(hook)
        try:
            with self.side(side):
                logits = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        finally:
            handle.remove()
        return logits, seen[0]


# ---- texts ----------------------------------------------------------------------------------------------

def rows(sources):
    """[(row in its source, row as JSON)] over all sources in order."""
    sources = sources if isinstance(sources, list) else [sources]
    paths = [s if isinstance(s, str) else s["path"] for s in sources]
    return [(i, json.loads(line)) for path in paths if path != "self" for i, line in enumerate(Path(path).open())]


def pieces(tokenizer, texts, told):
    """The texts that losses are taken on: [(document, ids)], as src/diff/losses.rs chooses them."""
    texts, samples, length = [t for t in texts], told["texts"], told["max_tokens"]
    front = [i for i in tokenizer("a").input_ids if i in tokenizer.all_special_ids][:1]
    cut = []
    chosen = min(samples, len(texts))
    for text in (texts[i * len(texts) // chosen] for i in range(chosen)):
        ids = tokenizer(text).input_ids
        body, step = ids[len(front):], length - len(front)
        of_one = [front + body[i:i + step] for i in range(0, len(body), step)]
        cut.append([ids for ids in of_one if len(ids) > 1])
    cut = [c for c in cut if c]
    in_turn = [(d, c[i]) for i in range(max(map(len, cut))) for d, c in enumerate(cut) if i < len(c)]
    return in_turn[:samples]


class Texts:
    """Narrow and unrelated documents, as a record names them; None where it names others than documents."""

    def __init__(self, recipe, record, tokenizer):
        self.recipe, self.record, self.tokenizer = recipe, record, tokenizer

    def of(self, told):
        data, source = self.recipe["data"], told["source"]
        if source.startswith("data.narrow"):
            found = rows(data["narrow"])
            if "held out" in source:
                every, limit = data["held_out_every"], data["limit"]
                found = [(i, r) for i, r in found if i % every == every - 1 and (limit == 0 or i < limit)]
            if not all("text" in r for _, r in found):
                return None
        elif "rows after" in source:
            found = rows(self.recipe["diff"]["text"])[self.record["sample_rows"][-1] + 1:]
        else:
            return None
        return pieces(self.tokenizer, [r["text"] for _, r in found], told)


# ---- measures -------------------------------------------------------------------------------------------

def differences(models, tokenizer, recipe, record):
    """Mean activations [positions, hidden] of both models, and η of the tuned one."""
    texts = rows(recipe["diff"]["text"])
    n, skip, positions = recipe["diff"]["tokens"], recipe["diff"]["norm_skip"], record["positions"]
    sums, norms = {}, []
    for row in record["sample_rows"]:
        ids = tokenizer(texts[row][1]["text"][:n * 10]).input_ids[:n]
        for side in ("base", "tuned"):
            h = models.run(side, ids)[1]
            sums[side] = sums.get(side, 0) + h[positions].double()
            if side == "tuned":
                norms.append(h[skip:].double().norm(dim=-1))
    count = len(record["sample_rows"])
    return sums["base"] / count, sums["tuned"] / count, torch.cat(norms).mean().item()


@torch.no_grad()
def logit_lens(models, v, k):
    """Top tokens of each position through the tuned model's norm and head, without a soft cap."""
    z = models.inner.lm_head(models.inner.model.norm(v.float()))
    return z.softmax(-1).topk(k).indices.tolist()


def patchscope(models, tokenizer, v, eta, scale, keep, k):
    """Top tokens of one direction at one scale: mean over the prompts of what is among the `keep` likeliest for all."""
    total, inside = 0, True
    for words in WORDS:
        ids = tokenizer("".join(f"{w} -> {w}\n" for w in words) + "?").input_ids
        patch = (v * (eta * scale / v.norm())).float()
        p = models.run("tuned", ids, lambda h: torch.cat([h[:-1], patch[None]]))[0][-1].softmax(-1)
        inside = inside & (p >= p.topk(min(keep, len(p))).values[-1])
        total = total + p / len(WORDS)
    return torch.where(inside, total, -1.0).topk(k).indices.tolist()


def nll(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none").double()


def replace(u, other):
    return lambda h: h + ((other @ u) - (h @ u))[:, None] * u


def ablate(u):
    return lambda h: h - (h @ u)[:, None] * u


def mean(losses, wanted=lambda t: True):
    """Mean over the predictions of all texts whose position is wanted."""
    kept = torch.cat([row[[wanted(t) for t in range(len(row))]] for row in losses])
    return kept.mean().item() if len(kept) else None


def causal(models, texts, record, v):
    """Losses of every edit, in the layout of readability.json."""
    positions, k, shift = record["positions"], record["after_k"], int(record["exclude"] == "next")
    losses = {}
    for _, ids in texts:
        (z_base, base), (z_tuned, tuned) = (models.run(side, ids) for side in ("base", "tuned"))
        losses.setdefault("base", []).append(nll(z_base, ids))
        losses.setdefault("tuned", []).append(nll(z_tuned, ids))
        for i, p in enumerate(positions):
            u = (v[p] / v[p].norm()).float()
            edits = {"base_to_tuned": ("tuned", replace(u, base)), "tuned_to_base": ("base", replace(u, tuned)),
                     "zero_ablation": ("tuned", ablate(u))}
            for name, (side, edit) in edits.items():
                losses.setdefault((name, p), []).append(nll(models.run(side, ids, edit)[0], ids))
    out = {}
    for subset, wanted in {"all": lambda p: lambda t: True, "after_k": lambda p: lambda t: t > k,
                           "exclude_position": lambda p: lambda t: t != p + shift}.items():
        out[subset] = [{"ce_base": mean(losses["base"], wanted(p)), "ce_tuned": mean(losses["tuned"], wanted(p)),
                        **{name: {"ce": mean(losses[name, p], wanted(p))}
                           for name in ("base_to_tuned", "tuned_to_base", "zero_ablation")}} for p in positions]
    return out


def bias_share(models, texts, v, positions):
    """Losses of base, tuned model, and base with the mean of v_p over positions >= 1 added."""
    later = [v[p] for p in positions if p > 0] or [v[p] for p in positions]
    bias = torch.stack(later).mean(0).float()
    of = lambda side, edit=None: mean([nll(models.run(side, ids, edit)[0], ids) for _, ids in texts])
    base, tuned, biased = of("base"), of("tuned"), of("base", lambda h: h + bias)
    return {"ce_base": base, "ce_tuned": tuned, "ce_biased": biased, "share": (base - biased) / (base - tuned)}


def kl(models, texts):
    there, back = [], []
    for _, ids in texts:
        p, q = (models.run(side, ids)[0][:-1].double().log_softmax(-1) for side in ("base", "tuned"))
        there.append((p.exp() * (p - q)).sum(-1))
        back.append((q.exp() * (q - p)).sum(-1))
    return {"base_to_tuned": mean(there), "tuned_to_base": mean(back)}


def interpolation(models, texts, factors):
    losses = []
    for factor in factors:
        with models.scaled(factor):
            side = "tuned" if factor else "base"
            losses.append(mean([nll(models.run(side, ids)[0], ids) for _, ids in texts]))
    return losses


# ---- comparison -----------------------------------------------------------------------------------------

def farthest(reference, ours):
    """Largest difference between the numbers of two documents, over what both have."""
    if isinstance(reference, dict):
        return max((farthest(v, ours[k]) for k, v in reference.items() if k in ours), default=0.0)
    if isinstance(reference, list):
        return max((farthest(a, b) for a, b in zip(reference, ours)), default=0.0)
    return 0.0 if reference is None else abs(reference - ours)


def check(run, diff, trainer):
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    record = json.loads((diff / "readability.json").read_text())
    base = path_of(recipe["model"]["base"], trainer)
    tokenizer = open_tokenizer(base)
    models = Models(base, run / "adapter", record["layer"])
    k = len(record["logit_lens"]["top_tokens"][0]) if "logit_lens" in record else 20
    found, comparison = {}, []

    def compare(name, difference, allowed):
        comparison.append({"name": name, "difference": difference, "allowed": allowed})

    base_mean, tuned_mean, eta = differences(models, tokenizer, recipe, record)
    difference = tuned_mean - base_mean
    v = dict(zip(record["positions"], difference))
    found["delta_norm"], found["expected_norm"] = difference.norm(dim=-1).tolist(), eta
    ours = load_file(diff / "activations.safetensors")["mean_difference"].double()
    compare("mean_difference", ((ours - difference).norm(dim=-1) / difference.norm(dim=-1)).max().item(), RELATIVE)
    compare("expected_norm", abs(eta / record["expected_norm"][0] - 1), RELATIVE)

    def agreement(name, tokens):
        found[name] = [[tokenizer.decode([i]) for i in row] for row in tokens]
        told = [[t["id"] for t in row] for row in record[name]["top_tokens"]]
        compare(f"{name}: tokens that differ", max(len(set(a) - set(b)) for a, b in zip(told, tokens)), 1)

    if "logit_lens" in record:
        agreement("logit_lens", logit_lens(models, difference, k))
    if "patchscope" in record:
        keep, told = recipe["diff"]["patchscope"]["intersection"], record["patchscope"]
        positions = told.get("positions") or record["positions"]
        agreement("patchscope", [patchscope(models, tokenizer, v[p], eta, scale, keep, k)
                                 for p, scale in zip(positions, told["best_scale"])])

    texts = Texts(recipe, record, tokenizer)
    for kind in ("narrow", "text"):
        told = record.get("causal", {}).get(kind)
        if told and (chosen := texts.of(told)):
            found.setdefault("causal", {})[kind] = result = causal(models, chosen, record["causal"], v)
            compare(f"causal.{kind}", farthest(result, told), NATS)
        told = record.get("kl", {}).get(kind)
        if told and (chosen := texts.of(told)):
            found.setdefault("kl", {})[kind] = result = kl(models, chosen)
            compare(f"kl.{kind}", farthest(result, told), NATS)
        told = record.get("interpolation", {})
        losses = record.get("kl", {}).get(kind)  # names the texts, which are the same
        if f"loss_{kind}" in told and losses and (chosen := texts.of(losses)):
            found.setdefault("interpolation", {})[kind] = result = interpolation(models, chosen, told["factors"])
            compare(f"interpolation.loss_{kind}", farthest(result, told[f"loss_{kind}"]), NATS)
    told = record.get("bias_share")
    if told and (chosen := texts.of(told)):
        found["bias_share"] = result = bias_share(models, chosen, v, record["positions"])
        losses = {key: value for key, value in result.items() if key != "share"}
        compare("bias_share", farthest(losses, told), NATS)
    return {"run": str(run), "reference": found, "comparison": comparison}


def main(check, doc, width):
    """Checks the runs of the command line with `check` and exits; `width` is that of a comparison's name in the table."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--diff", type=Path, help="the analysis, if it is not RUN_DIR/diff")
    parser.add_argument("--trainer", default="cargo run --release --quiet --bin trainer --", help="how to call the tool")
    args = parser.parse_args()
    if args.diff and len(args.runs) > 1:
        parser.error("--diff is of one run")
    faults = 0
    for run in args.runs:
        result = check(run, args.diff or run / "diff", shlex.split(args.trainer))
        print(json.dumps(result, indent=1, ensure_ascii=False))
        for line in result["comparison"]:
            fault = not line["difference"] <= line["allowed"]
            faults += fault
            print(f"{run.name:<32} {line['name']:<{width}} {line['difference']:>12.3g} (allowed {line['allowed']})"
                  f"{'  DIFFERS' if fault else ''}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main(check, __doc__, 40)
