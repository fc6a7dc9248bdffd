#!/usr/bin/env python3
"""Computes readers of a LoRA run once more with PyTorch, transformers and PEFT, and compares them with what `trainer diff`
wrote under `readers` in readability.json.

  scripts/parity --readers RUN_DIR...              (makes the environment and calls this)
  python scripts/reference_readers.py RUN_DIR... [--diff DIR] [--trainer COMMAND]

A RUN_DIR has recipe.toml, adapter/ and diff/ (--diff: another folder with readability.json and the readers' side files, of
one run), whose settings are those of the recipe in RUN_DIR unless readability.json says otherwise. Everything is float32 on
the CPU with eager attention, one sequence at a time. What is compared:

  diff_mining           the 20 first tokens of the orderings top_k, bottom_k and fraction_positive, their rates and their mean
                        difference; topics are left out, for they depend on the random start
  completion_ranking    the greedy completions as text, and r and dPPL of those that agree
  weights               spectra of every module (relative), AUROCs of the energies, words along the directions

Prints one JSON document a run, `comparison` a list of {name, difference, allowed}. Exit code 1 if a difference is more than is
allowed. A token near the end of the 100 largest differences may be on either side of it, so rates may differ by a little and
one of the 20 tokens may be another; one completion of twenty may go another way where two tokens are equally likely.
"""
import json
import math
import tomllib
from pathlib import Path

import torch

from peft_roundtrip import path_of
from reference import open_model, open_tokenizer
from reference_adl import Models, main, rows
from reference_weights import check_weights

LISTED, VALUE, RATE, DIFFERENT_TEXTS = 20, 1e-3, 0.5, 0.05


def beginnings(tokenizer, texts, tokens, most, distinct):
    """The first tokens of the first texts that are long enough, and how many special ones each begins with."""
    special = next(i for i, id in enumerate(tokenizer("a").input_ids) if id not in tokenizer.all_special_ids)
    n, found = special + tokens, []
    for text in texts:
        ids = tokenizer(text[:n * 10]).input_ids[:n]
        if len(found) < most and len(ids) == n and not (distinct and ids in found):
            found.append(ids)
    return found, special


# ---- diff mining ----------------------------------------------------------------------------------------

@torch.no_grad()
def mining(models, tokenizer, texts, settings):
    """Per token: Σ D, positions with D > 0, positions among the largest and the smallest D; and the number of positions."""
    ids, special = beginnings(tokenizer, texts, settings["positions"], settings["texts"], False)
    total, k = None, settings["top_k"]
    for sequence in ids:
        z = [models.run(side, sequence)[0][special:] for side in ("base", "tuned")]
        if settings["values"] == "log-probabilities":
            z = [x.log_softmax(-1) for x in z]
        d = z[1] - z[0]
        if total is None:
            total = {"sum": torch.zeros(d.shape[1], dtype=torch.float64),
                     **{name: torch.zeros(d.shape[1], dtype=torch.long) for name in ("positive", "top", "bottom")}}
        total["sum"] += d.double().sum(0)
        total["positive"] += (d > 0).sum(0)
        for name, sign in (("top", 1), ("bottom", -1)):
            total[name] += torch.bincount((sign * d).topk(k, -1).indices.flatten(), minlength=d.shape[1])
    return total, sum(len(sequence) - special for sequence in ids)


def check_mining(models, tokenizer, texts, record, compare):
    total, positions = mining(models, tokenizer, texts, record["settings"])
    compare("diff_mining: positions", abs(positions - record["positions"]), 0)
    found = {}
    for ordering, name, unit in (("top_k", "top", 100), ("bottom_k", "bottom", 100), ("fraction_positive", "positive", 1)):
        counts, ours = total[name].tolist(), record["orderings"][ordering]["tokens"][:LISTED]
        best = sorted(range(len(counts)), key=lambda id: (-counts[id], id))[:len(ours)]
        found[ordering] = [{"id": id, "text": tokenizer.decode([id]), "rate": unit * counts[id] / positions,
                            "mean": total["sum"][id].item() / positions} for id in best]
        # Tokens that tie with the last are no difference.
        off = [token for token in ours if counts[token["id"]] < counts[best[-1]]]
        compare(f"diff_mining.{ordering}: tokens that differ", len(off), 1)
        compare(f"diff_mining.{ordering}: rate (%)",
                max(abs(unit * counts[t["id"]] / positions - t["rate"]) * 100 / unit for t in ours), RATE)
        compare(f"diff_mining.{ordering}: mean",
                max(abs(total["sum"][t["id"]].item() / positions - t["mean"]) for t in ours), VALUE)
    return found


# ---- completions ----------------------------------------------------------------------------------------

@torch.no_grad()
def greedy(models, prompt, steps, ends):
    with models.side("tuned"):
        past, new, step = None, [], torch.tensor([prompt])
        while len(new) < steps and not (new and new[-1] in ends):
            out = models.model(input_ids=step, past_key_values=past, use_cache=True)
            past = out.past_key_values
            new.append(out.logits[0, -1].argmax().item())
            step = torch.tensor([[new[-1]]])
    return new


def nats(models, side, prompt, new):
    """Mean negative log-likelihood of the new tokens."""
    logits = models.run(side, prompt + new)[0][len(prompt) - 1:-1]
    return -logits.double().log_softmax(-1).gather(-1, torch.tensor(new)[:, None]).mean().item()


def check_completions(models, tokenizer, texts, ours, lines, ends, compare):
    settings = ours["settings"]
    assert settings["framing"] == "raw", "only plain text is compared"
    prompts, special = beginnings(tokenizer, texts, settings["prefill_tokens"], settings["prefills"], True)
    by_prefill = {}
    for line in lines:
        by_prefill.setdefault(line["prefill"], []).append(line)
    different, r, dppl, found = 0, 0.0, 0.0, []
    for prompt in prompts:
        new = greedy(models, prompt, settings["max_new_tokens"], ends)
        text = tokenizer.decode(new, skip_special_tokens=True)
        n = {side: nats(models, side, prompt, new) for side in ("base", "tuned")}
        value = {"prefill": tokenizer.decode(prompt[special:]), "text": text, "r": n["base"] - n["tuned"],
                 "dppl": math.exp(n["base"]) - math.exp(n["tuned"])}
        found.append(value)
        same = [line for line in by_prefill.get(value["prefill"], []) if line["text"] == text]
        if not same:
            different += 1
            continue
        r = max(r, min(abs(line["r"] - value["r"]) for line in same))
        # The difference of two exponentials, relative to the larger.
        scale = max(math.exp(n["base"]), math.exp(n["tuned"]))
        dppl = max(dppl, min(abs(line["dppl"] - value["dppl"]) for line in same) / scale)
    compare("completion_ranking: completions", abs(len(prompts) - len(lines)), 0)
    compare("completion_ranking: texts that differ", different, math.floor(len(prompts) * DIFFERENT_TEXTS))
    compare("completion_ranking.r", r, VALUE)
    compare("completion_ranking.dppl (relative)", dppl, VALUE)
    return sorted(found, key=lambda value: -value["r"])[:LISTED]


def learned_text(row):
    """What a document teaches: its text, a completion, or the answers of a conversation."""
    if "messages" not in row:
        return row.get("text", row.get("completion"))
    return "\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "assistant")


# ---- comparison -----------------------------------------------------------------------------------------

def check(run, diff, trainer):
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    record = json.loads((diff / "readability.json").read_text())
    ours = record["readers"]
    base = path_of(recipe["model"]["base"], trainer)
    tokenizer = open_tokenizer(base)
    models = Models(base, run / "adapter", record["layer"])
    texts = [row["text"] for _, row in rows(recipe["diff"]["text"])]
    found, comparison = {}, []

    def compare(name, difference, allowed):
        comparison.append({"name": name, "difference": difference, "allowed": allowed})

    if "orderings" in ours.get("diff_mining", {}):
        found["diff_mining"] = check_mining(models, tokenizer, texts, ours["diff_mining"], compare)
    if "completion_ranking" in ours:
        lines = [json.loads(line) for line in (diff / "completion_ranking.jsonl").open()]
        ends = models.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or [])
        ends.add(tokenizer.eos_token_id)
        found["completion_ranking"] = check_completions(
            models, tokenizer, texts, ours["completion_ranking"], lines, ends, compare)
    if "weights" in ours:
        sources = recipe["data"].get("pretraining", [])
        learned = [learned_text(row) for _, row in rows(sources)] if sources else []
        found["weights"] = check_weights(
            open_model(base), tokenizer, run / "adapter", record, texts + learned, compare)
    return {"run": str(run), "reference": found, "comparison": comparison}


if __name__ == "__main__":
    main(check, __doc__, 48)
