"""Scenes of the golden in which something is wrong: input, damaged folders; and what the help says."""
import json


def errors_make(lab):
    lab.setup("llama", ["qwen2", "gemma3"])
    base = "models/llama"
    fit = ["fit", "recipe.toml", "--out", "out"]
    for sets in WRONG_SETS:
        lab.run(*fit, sets=sets, fails=None)
    for args in WRONG_ARGUMENTS:
        lab.run(*(arg.replace("BASE", base) for arg in args), fails=None)
    for name, content in WRONG_DOCUMENTS.items():
        lab.write(f"wrong/{name}", content)
        lab.run(*fit, sets=[f"data.narrow=wrong/{name}"], fails=None)
    for name, content in WRONG_RECIPES.items():
        lab.write(name, content)
        lab.run("fit", name, "--out", "out", fails=True)
    recipe = lab.read("recipe.toml")
    for old, new in [("batch_size", "batch_sizes"), ("lr = 1e-2", "lr = nan"), ("alpha = 6", 'alpha = "six"'),
                     ("samples = 16", "samples = 1"), ("pretraining.jsonl", "nowhere.jsonl")]:
        recipe = recipe.replace(old, new, 1)
    lab.write("faulty.toml", recipe + "[sweep]\nmx = [0, 1]\nseeds = 'one'\ngrid = { seed = [] }\n")
    for command in ["fit", "inspect", "sweep"]:
        lab.run(command, "faulty.toml", *(["--out", "out"] if command != "inspect" else []),
                sets=["data.mix=-1", "diff.positions=[1, 99]", "train.lora.r=-3"], fails=True)
    lab.run("tune", "faulty.toml", "--out", "out", "--trace", "x<=1", "--behaviour", "y>=1", fails=True)
    architecture = json.loads(lab.read("models/llama/config.json"))
    lab.copy("models/llama", "strange")
    for change in [{"model_type": "mamba"}, {"architectures": ["StrangeForCausalLM"]}, {"hidden_act": "relu"}]:
        lab.write("strange/config.json", json.dumps(architecture | change))
        lab.run("generate", "--base", "strange", "--prompt", "x", "--max-new-tokens", "3", "--json", fails=None)
    lab.run("fit", "recipe.toml", "--out", "run", sets=["train.steps=1"])


def errors_read(lab):
    for args in AFTER_A_RUN:
        lab.run(*args, fails=None)
    for sets in [["train.lr=1", "data.mix=0", "name=other"], ["data.narrow=measure.jsonl"], ["diff.samples=1000"],
                 ["behaviour.bootstrap=9"], ["diff.text=[]"], ["diff.chat.text=nowhere.jsonl"]]:
        lab.run("diff", "run", sets=sets, fails=None)
    lab.run("behave", "run", sets=["diff.samples=3"], fails=True)
    lab.run("behave", "run", sets=["behaviour.facts.contexts=['no place']", "behaviour.taboo.alternatives=['abcdef']",
                                   "behaviour.taboo.guess='?'", "behaviour.facts.items=nowhere.jsonl"], fails=True)


WRONG_SETS = [
    ["train.batch_sizes=4", "trian.lr=1", "data.mix=nan"], ["train.lr=0"], ["train.epochs=1"], ["train.steps=1e3"],
    ["train.steps=0"], ["train.lora.target_modules=['q']"], ["train.lora.target_modules='('"],
    ["train.lora.modules_to_save=['mlp', 'up_proj']"], ["train.lora.init=nowhere"], ["data.narrow=[]"],
    ["data.narrow=self"], ["data.narrow=['narrow.jsonl', 'narrow.jsonl']"], ["data.narrow=[{path='narrow.jsonl', weight=0}]"],
    ["data.narrow=['nowhere.jsonl', 'recipe.toml']"], ["data.mix=9"], ["data.chat_template=nowhere.jinja"], ["seed=-1"],
    ["model.base="], ["model.base=gema-3-270m"], ["model.base=no-such-model-at-all"], ["model.base=gemma-3-270m"],
    ["model.base=hf:org/name@v1"], ["model.base=all-minilm-l6-v2"], ["model.base=./embedder"], ["model.dtype=native"],
    ["diff.positions=[]"], ["diff.positions=[1, 99]", "diff.layer=2", "diff.samples=1"], ["diff.steering.positions=[7]"],
    ["diff.preset=papers"], ["diff.embedder=nowhere"], ["train.warmup_steps=100"], ["train.lr"], ["train..lr=1"], ["train=1"],
    ["train.lr.x=1"], ["sweep.mix=[0, 1]"], ["name=../x"], ["train.mitigation.divergence.weight=-1", "data.pretraining=[]"],
    ["train.mitigation.ablation.directions=recipe.toml"], ["train.trace.stop.measure=x"], ["train.steps=100000000",
    "train.batch_size=1000000"], ["behaviour.facts.items=nowhere.jsonl", "behaviour.words.words=[]"],
    ["model.base=models/gemma3", "data.narrow=chat.jsonl"], ["model.base=models/gemma3", "data.chat_template=gemma"],
]

WRONG_ARGUMENTS = [
    [], ["no-such-command"], ["fit"], ["fit", "nowhere.toml"], ["fit", "recipe.toml", "--resume", "--out", "nowhere"],
    ["diff"], ["diff", "nowhere"], ["diff", "--base", "BASE"], ["merge", "nowhere", "--out", "m"],
    ["merge", "BASE", "--out", "m"], ["merge", "BASE/adapter", "--out", "m"], ["report", "nowhere"], ["report"],
    ["verify", "nowhere"], ["behave", "nowhere"], ["export", "nowhere", "--out", "e"], ["grade", "nowhere"],
    ["audit", "nowhere"], ["runs", "list", "nowhere"], ["runs", "compare", "a", "b"], ["runs", "prune", "nowhere"],
    ["sweep", "--status", "nowhere"], ["sweep", "--summary", "nowhere"], ["sweep", "--cell", "../x", "--out", "s"],
    ["sweep", "recipe.toml", "--out", "s"], ["sweep", "recipe.toml", "--mix", "0,nan", "--out", "s"],
    ["sweep", "recipe.toml", "--mix", "0,99", "--out", "s"], ["sweep", "recipe.toml", "--grid", "train.lr", "--out", "s"],
    ["sweep", "recipe.toml", "--grid", "train.lr=-1,1e-3", "--grid", "data.lng=1", "--out", "s"],
    ["sweep", "recipe.toml", "--mix", "0", "--memory", "0.01", "--out", "s"],
    ["sweep", "recipe.toml", "--mix", "0", "--sbatch=-p x", "--out", "s"],
    ["tune", "recipe.toml", "--mix", "0", "--trace", "lift<=1", "--behaviour", "loss_narow>=1", "--out", "t"],
    ["tune", "recipe.toml", "--mix", "0", "--trace", "layer<1", "--behaviour", "layer>=1", "--out", "t"],
    ["tune", "recipe.toml", "--mix", "0", "--trace", "layer<=1", "--behaviour", "layer>=1", "--grid", "train.steps=1,2",
     "--out", "t"],
    ["generate", "--base", "BASE"], ["generate", "--base", "BASE", "--prompt", ""],
    ["generate", "--base", "BASE", "--prompt", "x", "--temperature", "-1"],
    ["generate", "--base", "BASE", "--prompts", "narrow.jsonl"], ["generate", "--base", "BASE", "--prompts", "nowhere"],
    ["generate", "--base", "BASE", "--prompt", "x", "--adapter", "nowhere"],
    ["generate", "--base", "BASE", "--prompt", "x", "--adapter", "models/qwen2/adapter"],
    ["generate", "--base", "models/gemma3", "--prompt", "x", "--chat"],
    ["diff", "--base", "BASE", "--tuned", "models/qwen2", "--recipe", "recipe.toml", "--out", "d"],
    ["models", "fetch", "nothing"], ["models", "fetch", "gemma-3-270m"], ["completions", "dos"],
    ["data", "numbers", "--base", "models/gemma3", "--system", "x", "--count", "5", "--out", "a.jsonl"],
    ["data", "sample", "--base", "BASE", "--documents", "0", "--out", "a.jsonl"],
    ["data", "sample", "--base", "BASE", "--documents", "1", "--out", "narrow.jsonl"],
    ["data", "documents", "recipe.toml", "--base-url", "http://127.0.0.1:9", "--model", "m", "--out", "a.jsonl"],
    ["data", "taboo", "--word", "x", "--count", "0", "--out", "a.jsonl"],
]

WRONG_DOCUMENTS = {
    "a.jsonl": '{"text": "fine"}\n{broken\n\n{"txt": 1}\n',
    "b.jsonl": b'{"text": "\xff"}\n',
    "c.jsonl": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "d.jsonl": '{"text": " \\n"}\n{"text": 3}\n{"text": null}\n{"prompt": [], "completion": true}\n',
    "e.jsonl": "",
    "f.jsonl": '[]\n"text"\nnull\n{"prompt": "p", "completion": ""}\n',
    "g.jsonl": '{"messages": []}\n{"messages": [{"role": "tool", "content": "x"}]}\n{"messages": 3}\n',
    "h.jsonl": '{"text": "a"}\n',
    "i.csv": "name,other\na,b\n",
    "j.parquet": "no parquet",
}

WRONG_RECIPES = {
    "twice.toml": "seed = 1\nseed = 2\n", "bytes.toml": b'name = "\xff"\n', "empty.toml": "",
}

AFTER_A_RUN = [
    ["fit", "recipe.toml", "--out", "run"], ["fit", "recipe.toml", "--out", "run", "--resume"],
    ["fit", "recipe.toml", "--out", "recipe.toml"], ["behave", "run", "--out", "recipe.toml"],
    ["report", "run", "--out", "run/manifest.json"], ["grade", "run"], ["audit", "run"], ["verify", "run"],
    ["merge", "run", "--out", "run"], ["diff", "run", "--preset", "papers"], ["sweep", "--status", "run"],
    ["report", "run"], ["runs", "list", "."], ["runs", "prune", "."], ["export", "run", "run", "--out", "twice"],
]


def damage_make(lab):
    lab.setup()
    lab.run("fit", "recipe.toml", "--out", "run", sets=["train.checkpoint_every=3"])
    lab.run("diff", "run")
    lab.run("behave", "run")


def damage_read(lab):
    """Each damage is verified, reported and resumed, and mended."""
    for name, old, new in DAMAGES:
        before = lab.path(name).read_bytes()
        if old is None:
            lab.path(name).unlink()
        else:
            lab.write(name, before.replace(old, new, 1) if old else new or before[:-9])
        lab.run("verify", "run", fails=None)
        if name.startswith("run/"):
            lab.run("report", "run", "--out", "page.html", fails=None)
            lab.run("fit", "recipe.toml", "--out", "run", "--resume", sets=["train.checkpoint_every=3"], fails=None)
        lab.write(name, before)
    lab.run("verify", "run", "--json")
    lab.run("verify", "run", "--data", "nowhere", fails=None)
    lab.path("narrow.jsonl").rename(lab.path("moved.jsonl"))
    lab.run("diff", "run", "--out", "moved", sets=["data.narrow=moved.jsonl", "diff.steering.enabled=false"], fails=None)
    lab.run("diff", "run", "--out", "gone", fails=True)


# A file, a part of it and what it becomes; no part: the whole, or the end is cut off; None: the file is removed. What has
# times in it is not cut, for what is said of the rest would differ.
DAMAGES = [
    ("run/recipe.toml", b"seed = 0", b"seed = 1"),
    ("run/recipe.toml", b"[diff]", b"[dff]"),
    ("run/recipe.toml", None, None),
    ("run/manifest.json", b'"order_sha256": "', b'"order_sha256": "0'),
    ("run/manifest.json", b'"threads"', b'"treads"'),
    ("run/manifest.json", b"", b"{"),
    ("run/manifest.json", None, None),
    ("run/metrics.jsonl", b'"step":3', b'"step":4'),
    ("run/metrics.jsonl", b"", b'{"step":'),
    ("run/metrics.jsonl", None, None),
    ("run/diff/readability.json", b'"samples": 16', b'"samples": 17'),
    ("run/diff/readability.json", b'"delta_norm"', b'"delta"'),
    ("run/diff/readability.json", b"", b"{}"),
    ("run/diff/readability.json", None, None),
    ("run/diff/activations.safetensors", b"", b""),
    ("run/diff/steering.jsonl", None, None),
    ("run/diff/steering.jsonl", b"", b"{}\n"),
    ("run/diff/sha256.json", None, None),
    ("run/behaviour.json", b'"facts"', b'"facets"'),
    ("run/behaviour.json", b"", b""),
    ("run/adapter/adapter_model.safetensors", b"", b""),
    ("run/adapter/adapter_model.safetensors", None, None),
    ("run/adapter/adapter_config.json", b'"r": 4', b'"r": 5'),
    ("narrow.jsonl", b"abcdef", b"ghij"),
    ("measure.jsonl", b"cdef", b"train"),
    ("facts.jsonl", b"oven", b"over"),
]


def help_make(lab):
    lab.folder.mkdir(exist_ok=True)
    lab.run("--help")
    lab.run("--version")
    for command in ["fit", "diff", "behave", "data", "generate", "grade", "audit", "inspect", "merge", "export", "sweep",
                    "tune", "runs", "verify", "models", "report", "completions", "data sample", "data numbers",
                    "data documents", "data taboo", "runs list", "runs compare", "runs prune", "models fetch"]:
        lab.run(*command.split(), "--help")
        lab.run(*command.split(), "-h")
    for shell in ["bash", "zsh", "fish"]:
        lab.run("completions", shell)
    lab.run("models")
    lab.run("models", "--json")
