//! Proves a run folder: every hash that it holds is computed again from what the hash is of.
//!
//! [`verify`] looks at recipe, base, data, example order, outputs and analysis, and trains nothing; [`retrain`]
//! compares with a second training.

mod moved;
pub mod retrain;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Result, bail};
use serde::Serialize;

pub use self::moved::Moved;
use crate::bail_input;
use crate::behaviour;
use crate::claims;
use crate::claims::StoredClaims;
use crate::corpus::Corpus;
use crate::data::mixture::Mixture;
use crate::diff::hashes::{self, Hashes};
use crate::error::Interrupted;
use crate::hub::is_inner_path;
use crate::interrupt::Interrupt;
use crate::model::load::source;
use crate::model::load::source::Pretrained;
use crate::recipe::{Recipe, ResolvedRecipe, SourceSpec};
use crate::run::RunDir;
use crate::run::metrics;
use crate::sha256::{sha256_content, sha256_file, sha256_path};
use crate::train::manifest::{Init, Manifest, Source};

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at: a file of the run folder, a data file, a fact.
    pub what: String,
    /// What came out.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What came out of a check.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Finding {
    /// As the manifest says; a note may say how that was found.
    Ok {
        /// Empty where there is nothing to say.
        #[serde(skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// Something else than the manifest says.
    Differs {
        /// What is there.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// Not there.
    Missing {
        /// What the manifest says.
        expected: String,
    },
    /// Not there, and nothing rests on it any more.
    Removed {
        /// Why it may be.
        note: String,
    },
}

impl Check {
    fn new(what: impl Into<String>, finding: Finding) -> Self {
        Self { what: what.into(), finding }
    }

    fn ok(what: impl Into<String>) -> Self {
        Self::new(what, Finding::Ok { note: String::new() })
    }

    fn differs(what: impl Into<String>, found: impl ToString, expected: impl ToString) -> Self {
        Self::new(what, Finding::Differs { found: found.to_string(), expected: expected.to_string() })
    }

    /// Compares two values that can be shown.
    fn same<T: PartialEq + ToString>(what: impl Into<String>, found: T, expected: T) -> Self {
        if found == expected { Self::ok(what) } else { Self::differs(what, found, expected) }
    }

    /// Compares the hash of a file or folder.
    fn hash(
        what: impl Into<String>,
        path: &Path,
        expected: &str,
        of: impl Fn(&Path) -> Result<String>,
    ) -> Self {
        if !path.exists() {
            return Self::new(what, Finding::Missing { expected: format!("sha256 {expected}") });
        }
        match of(path) {
            Ok(found) => Self::same(what, found, expected.to_string()),
            Err(e) => Self::differs(what, format!("{e:#}"), expected),
        }
    }

    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        matches!(self.finding, Finding::Ok { .. } | Finding::Removed { .. })
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let what = &self.what;
        match &self.finding {
            Finding::Ok { note } if note.is_empty() => write!(f, "ok       {what}"),
            Finding::Ok { note } => write!(f, "ok       {what}: {note}"),
            Finding::Differs { found, expected } => {
                write!(f, "differs  {what}: found {found}, expected {expected}")
            }
            Finding::Missing { expected } => write!(f, "missing  {what}: expected {expected}"),
            Finding::Removed { note } => write!(f, "removed  {what}: {note}"),
        }
    }
}

/// Base models that are open, by name and chat template: the cells of a sweep share theirs.
#[derive(Default)]
pub struct Bases(HashMap<(String, String), Rc<Pretrained>>);

impl Bases {
    fn open(&mut self, model: &str, template: &str, interrupt: &Interrupt) -> Result<Rc<Pretrained>> {
        let key = (model.to_string(), template.to_string());
        if let Some(base) = self.0.get(&key) {
            return Ok(base.clone());
        }
        let mut base = source::open_or_stop(model, interrupt)?;
        base.set_chat_template(template)?;
        let base = Rc::new(base);
        self.0.insert(key, base.clone());
        Ok(base)
    }
}

/// Refuses what is no finished run.
///
/// # Errors
/// An input error that says what is there.
pub fn must_be_trained(run: &RunDir) -> Result<()> {
    let shown = run.path().display();
    // Its content is what is checked.
    match (run.manifest().exists(), run.recipe().exists()) {
        (true, _) => Ok(()),
        (false, true) => Err(run.unfinished()),
        (false, false) => bail_input!("{shown}: not a run folder (it has no manifest.json)"),
    }
}

/// The manifest of a run.
///
/// # Errors
/// If it is not the JSON of a manifest.
pub fn manifest(run: &RunDir) -> Result<Manifest> {
    read(&run.manifest(), Manifest::read)
}

/// A file that has to be there; why it cannot be read is told without its name, which is told before.
fn read<T>(path: &Path, read: impl Fn(&Path) -> Result<Option<T>>) -> Result<T> {
    match read(path) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => bail!("not readable: no such file"),
        Err(e) => {
            let text = e.to_string();
            bail!("not readable: {}", without_name(&text, path))
        }
    }
}

/// What was said of a file without its name in front: `line 3: EOF` of `FILE:3: EOF`.
fn without_name(text: &str, path: &Path) -> String {
    let Some(rest) = text.strip_prefix(&path.display().to_string()) else { return text.into() };
    let rest = rest.trim_start_matches([':', ' ']);
    match rest.split_once(':') {
        Some((line, _)) if line.parse::<usize>().is_ok() => format!("line {rest}"),
        _ => rest.into(),
    }
}

/// Looks at a finished run. What is found wrong is a [`Check`], not an error.
///
/// # Errors
/// [`Interrupted`], or the input error of [`must_be_trained`].
pub fn verify(run: &RunDir, moved: &Moved, bases: &mut Bases, interrupt: &Interrupt) -> Result<Vec<Check>> {
    must_be_trained(run)?;
    let manifest = match manifest(run) {
        Ok(manifest) => manifest,
        Err(e) => return Ok(vec![Check::differs("manifest.json", e, "what a run records")]),
    };
    let mut checks = written(run, &manifest);
    checks.extend(given(&manifest, moved));
    interrupt.check("nothing was changed")?;

    match Recipe::stored(&run.recipe()) {
        Ok(recipe) => {
            let recipe = moved.recipe(recipe);
            checks.push(steps(run, &recipe, &manifest));
            checks.extend(planned(&recipe, &manifest, moved, bases, interrupt)?);
        }
        Err(e) => checks.push(Check::differs("recipe.toml, read", e, "a recipe")),
    }
    if run.diff().exists() {
        let file = format!("diff/{}", hashes::FILE);
        checks.extend(analysis(run, "diff", &run.diff(), &file, &manifest, moved));
    }
    if run.behaviour().exists() {
        checks.extend(analysis(run, "behaviour", run.path(), behaviour::HASHES, &manifest, moved));
    }
    checks.extend(of_claims(run.path(), claims::check_run(run.path())));
    Ok(checks)
}

/// Looks at the claims on all cells of a sweep folder together.
pub fn verify_sweep(dir: &Path) -> Vec<Check> {
    of_claims(dir, claims::check_sweep(dir))
}

/// How many values of a `claims.json` are named that are not what comes out.
const NAMED: usize = 5;

/// What was found of the `claims.json` in a folder; nothing where there is none, as in folders of before.
fn of_claims(dir: &Path, found: Result<StoredClaims>) -> Vec<Check> {
    let file = claims::file::FILE;
    let expected = "the claims computed from the files in its folder";
    match found {
        Ok(StoredClaims::Absent) => Vec::new(),
        Ok(StoredClaims::OfOtherRules(schema)) => {
            let note = format!("schema {schema}, this program uses {}; not compared", claims::file::SCHEMA);
            vec![Check::new(file, Finding::Ok { note })]
        }
        Ok(StoredClaims::Compared(differences)) if differences.is_empty() => vec![Check::ok(file)],
        Ok(StoredClaims::Compared(differences)) => {
            let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
            let named = differences.iter().take(NAMED);
            let checks =
                named.map(|d| Check::differs(format!("{file}, {}", d.what), show(&d.stored), show(&d.today)));
            let more = differences.len().saturating_sub(NAMED);
            let more =
                (more > 0).then(|| Check::differs(file, format!("{more} more values that differ"), expected));
            checks.chain(more).collect()
        }
        Ok(StoredClaims::Unreadable(why)) => {
            let why = without_name(&why, &dir.join(file));
            vec![Check::differs(file, format!("not readable: {why}"), "claims")]
        }
        Err(e) => vec![Check::differs(file, format!("cannot be computed again: {e:#}"), expected)],
    }
}

/// What the run wrote.
fn written(run: &RunDir, manifest: &Manifest) -> Vec<Check> {
    let mut checks = Vec::new();
    let sha256 = &manifest.adapter_sha256;
    match manifest.files.iter().find(|(name, _)| name.ends_with("model.safetensors")) {
        Some((_, recorded)) if recorded == sha256 => {}
        Some((name, recorded)) => {
            checks.push(Check::differs(format!("manifest.json, {name}"), recorded, sha256));
        }
        None => checks.push(Check::differs("manifest.json, files", "no trained weights", sha256)),
    }
    for (name, recorded) in &manifest.files {
        if !is_inner_path(name) {
            checks.push(Check::differs(
                "manifest.json, files",
                format!("{name:?}"),
                "paths in the run folder",
            ));
            continue;
        }
        let removed = name.starts_with("checkpoints/") && !run.checkpoints().exists();
        checks.push(match removed {
            true => Check::new(name, Finding::Removed { note: "a finished run needs no checkpoint".into() }),
            false => Check::hash(name, &run.path().join(name), recorded, sha256_content),
        });
    }
    checks
}

/// What the run was given, but for the base.
fn given(manifest: &Manifest, moved: &Moved) -> Vec<Check> {
    let mut checks = Vec::new();
    for Source { provenance, .. } in &manifest.data {
        let path = moved.find(&provenance.path);
        checks.push(Check::hash(format!("data {}", path.display()), &path, &provenance.sha256, sha256_path));
    }
    if let Some(init) = &manifest.init {
        let dir = moved.find(&init.path);
        for (name, recorded) in &init.sha256 {
            let path = dir.join(name);
            checks.push(Check::hash(format!("init {}", path.display()), &path, recorded, sha256_file));
        }
    }
    for (path, recorded) in manifest.matched.iter().flat_map(|matched| &matched.items) {
        let path = moved.find(path);
        checks.push(Check::hash(format!("items {}", path.display()), &path, recorded, sha256_path));
    }
    for (path, recorded) in &manifest.directions {
        let path = moved.find(path);
        checks.push(Check::hash(format!("directions {}", path.display()), &path, recorded, sha256_file));
    }
    checks
}

/// Each step once, in order.
fn steps(run: &RunDir, recipe: &Recipe, manifest: &Manifest) -> Check {
    const WHAT: &str = "metrics.jsonl, each step once";
    let examples: usize = manifest.data.iter().map(|source| source.exposure.examples).sum();
    let steps = examples.div_ceil(recipe.train.batch_size.max(1));
    let expected = format!("steps 0 to {steps} in order");
    if !run.metrics().is_file() {
        return Check::new(WHAT, Finding::Missing { expected });
    }
    let lines = match read(&run.metrics(), metrics::read) {
        Ok(lines) => lines,
        Err(e) => return Check::differs(WHAT, e, expected),
    };
    if let Some((i, line)) = lines.values.iter().enumerate().find(|(i, line)| line.step != *i) {
        let found = format!("step {} in line {}, where {i} belongs", line.step, i + 1);
        return Check::differs(WHAT, found, expected);
    }
    match lines.values.len() {
        n if n == steps + 1 && !lines.cut_off => Check::ok(WHAT),
        n => Check::differs(WHAT, format!("{n} lines"), expected),
    }
}

/// The base, and what recipe, base and data decide together: the mixture is planned again.
fn planned(
    recipe: &Recipe,
    manifest: &Manifest,
    moved: &Moved,
    bases: &mut Bases,
    interrupt: &Interrupt,
) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let base = match bases.open(&recipe.model.base, &recipe.data.chat_template, interrupt) {
        Err(e) if e.is::<Interrupted>() => return Err(e),
        other => other,
    };
    let nothing = BTreeMap::new();
    let found = base.as_ref().map_or(&nothing, |base| &base.sha256);
    for (name, recorded) in &manifest.base.sha256 {
        let what = format!("base {}, {name}", manifest.base.id);
        checks.push(match (found.get(name), &base) {
            (Some(sha256), _) => Check::same(what, sha256.clone(), recorded.clone()),
            (None, Err(e)) if Path::new(&recipe.model.base).exists() => {
                Check::differs(what, format!("{e:#}"), recorded)
            }
            (None, _) => Check::new(what, Finding::Missing { expected: format!("sha256 {recorded}") }),
        });
    }
    let plan = || -> Result<Manifest> {
        let base = base?;
        let sampled = manifest.data.iter().find(|source| source.provenance.source == "self");
        let sampled = sampled.map(|source| moved.find(&source.provenance.path));
        // The documents of a data set of a hub are where the run read them.
        let recorded = |spec: &SourceSpec| {
            let read = manifest.data.iter().find(|source| source.provenance.source == spec.name());
            read.filter(|_| spec.hub_id().is_some()).map(|source| moved.find(&source.provenance.path))
        };
        let resolved = ResolvedRecipe::new(recipe.clone(), |spec| {
            recorded(spec).unwrap_or_else(|| spec.path.clone().into())
        });
        let corpus = Corpus::read(&resolved, &base, sampled.as_deref())?;
        let mut mixture = Mixture::plan(&corpus.pools, &recipe.data, &recipe.train, recipe.seed)?;
        if let Some(steps) = manifest.stopped_after {
            mixture.cut(&corpus.pools, steps * recipe.train.batch_size);
        }
        let init = manifest.init.as_ref().map(|init| Init::of(&moved.find(&init.path))).transpose()?;
        Ok(Manifest::new(recipe, &base, &corpus, &mixture, init))
    };
    let plan = match plan() {
        Ok(plan) => plan,
        Err(e) => {
            let (found, expected) = (format!("cannot be planned: {e:#}"), &manifest.order_sha256);
            checks.push(Check::differs("example order", found, expected));
            return Ok(checks);
        }
    };
    checks.push(Check::same("example order", plan.order_sha256.clone(), manifest.order_sha256.clone()));
    checks.push(Check::same("realised mix", drawn(&plan), drawn(manifest)));
    let facts =
        |m: &Manifest| format!("{:?}, {:?}, seed {}, {}", m.name, m.description, m.seed, m.method.name());
    checks.push(Check::same("name, description, seed and method", facts(&plan), facts(manifest)));
    Ok(checks)
}

/// What was drawn of each source, and the ratio that came out; tells of a changed tokenizer too.
fn drawn(manifest: &Manifest) -> String {
    let sources = manifest.data.iter().map(|s| (&s.provenance.tally, s.provenance.held_out, &s.exposure));
    let whole = (sources.collect::<Vec<_>>(), &manifest.mix);
    serde_json::to_string(&whole).unwrap_or_default()
}

/// An analysis of the run called `name`, whose files are in `dir` and whose hashes are in `file` of the run folder.
fn analysis(
    run: &RunDir,
    name: &str,
    dir: &Path,
    file: &str,
    manifest: &Manifest,
    moved: &Moved,
) -> Vec<Check> {
    if !run.path().join(file).exists() {
        return vec![Check::new(file, Finding::Missing { expected: "the hashes of the analysis".into() })];
    }
    let record = match read(&run.path().join(file), Hashes::read) {
        Ok(record) => record,
        Err(e) => return vec![Check::differs(file, e, "what an analysis records")],
    };
    let mut checks = Vec::new();
    for (written, recorded) in &record.files {
        let path = dir.join(written);
        let what = path.strip_prefix(run.path()).unwrap_or(&path).display().to_string();
        checks.push(Check::hash(what, &path, recorded, sha256_content));
    }
    checks.push(Check::same(format!("{name}, its base"), shown(&record.base), shown(&manifest.base.sha256)));
    let tuned = if run.adapter().exists() { run.adapter() } else { run.model() };
    for (file, recorded) in &record.tuned {
        checks.push(Check::hash(format!("{name}, its {file}"), &tuned.join(file), recorded, sha256_file));
    }
    let known = manifest.data.iter().map(|source| &source.provenance);
    let known: BTreeMap<&str, &str> = known.map(|p| (p.path.as_str(), p.sha256.as_str())).collect();
    for (path, recorded) in &record.texts {
        if known.get(path.as_str()) == Some(&recorded.as_str()) {
            continue; // looked at among the data
        }
        let path = moved.find(path);
        checks.push(Check::hash(
            format!("{name}, its text {}", path.display()),
            &path,
            recorded,
            sha256_path,
        ));
    }
    checks
}

fn shown(hashes: &BTreeMap<String, String>) -> String {
    hashes.iter().map(|(name, sha256)| format!("{name} {sha256}")).collect::<Vec<_>>().join(", ")
}
