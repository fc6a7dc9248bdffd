//! Data sets of a Hugging Face hub: the documents that a recipe asks for are read where they stand, once, and kept as
//! JSON lines in the cache under what decides them. Whoever asks again needs no network.

mod files;
mod shuffle;

use std::cell::Cell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use self::files::{Listing, Selection, Shard};
use self::shuffle::Shuffle;
use super::document::{COLUMNS, document};
use super::rows::{Format, MAX_FAULTS, Take};
use super::{compressed, csv, json_lines, parquet, size};
use crate::atomic::{fill_atomically, write_atomically, write_json};
use crate::bail_input;
use crate::data::chat_template::is_something;
use crate::error::{InputError, input_error};
use crate::hub::{Cache, Client, HubFault, HubSettings, KEPT, RemoteFile, RepoId, RepoKind, offline};
use crate::interrupt::Interrupt;
use crate::limits::{LEAST_EXPANSION, MOST_EXPANSION};
use crate::progress;
use crate::recipe::SourceSpec;

/// Bytes of shards that are read without being told how many documents to take.
const LARGEST_WITHOUT_ROWS: u64 = 2 << 30;

/// The branch on which the hub keeps parquet of data sets that have none.
const CONVERTED: &str = "refs/convert/parquet";

/// What an extract is and how it came about; stands beside it.
#[derive(Debug, Serialize)]
struct ExtractRecord<'a> {
    repo: &'a str,
    /// As the recipe has it.
    revision: &'a str,
    commit: &'a str,
    config: Option<&'a str>,
    split: &'a str,
    rows: Option<u64>,
    shuffle_buffer: Option<u64>,
    shuffle_seed: Option<u64>,
    /// Documents in the extract.
    documents: u64,
    /// Rows without text, which are left out and do not count.
    blank: u64,
    /// Shards of which rows were read, in this order.
    files: Vec<String>,
    /// Bytes that came over the network.
    bytes_received: u64,
}

/// Sees to it that the documents of an `hf:` source are in the cache; others are left alone. The revision becomes the
/// commit that it was when the documents were taken.
///
/// # Errors
/// An [`InputError`] if the data set, its configuration, split or rows do not serve, or the hub is out of bounds or out
/// of reach; [`crate::error::Interrupted`]. No part of an extract is then left under its name.
pub fn take(spec: &mut SourceSpec, cache: &Path, interrupt: &Interrupt) -> Result<()> {
    let Some(id) = spec.hub_id() else { return Ok(()) };
    let asked = RepoId::parse(id)?;
    let folder = folder(cache, &asked);
    let known = folder.join("refs").join(key(spec, &asked.revision));
    let pin_to_kept = |spec: &mut SourceSpec| {
        let Some(commit) = known_commit(&asked, &known) else { return false };
        let extract = extract_path(&folder, spec, &commit);
        let kept = extract.exists();
        if kept {
            pin(spec, &asked, &commit);
        }
        kept
    };
    if pin_to_kept(spec) {
        return Ok(());
    }
    if offline() {
        bail_input!(
            "{}: these documents are not in the cache and HF_HUB_OFFLINE is set; with a network, run trainer inspect \
             RECIPE to fetch them",
            spec.name()
        );
    }
    let writable = || format!("cannot write the cache {}", folder.display());
    std::fs::create_dir_all(folder.join("refs")).with_context(writable)?;
    // Held until the end of this function; the system frees it if we die.
    let lock = File::create(folder.join("lock")).with_context(writable)?;
    if lock.try_lock().is_err() {
        progress::say(format_args!("another process is reading hf:{}; waiting for it", asked.repo));
        while lock.try_lock().is_err() {
            interrupt.wait(KEPT)?;
        }
        if pin_to_kept(spec) {
            return Ok(());
        }
    }
    let client = Arc::new(Client::new(HubSettings::from_env(), interrupt));
    let (id, shards) = find(&client, &asked, spec)?;
    let extract = extract_path(&folder, spec, &id.revision);
    if !extract.exists() {
        progress::say(format_args!("reading {} at {}", spec.name(), id.revision));
        let mut record = None;
        fill_atomically(&extract, |part| {
            record = Some(fill(part, spec, &id, &asked, &shards, &client, interrupt)?);
            let record = record.as_ref().expect("just made");
            write_json(&extract.with_extension("json"), record)
        })
        .map_err(unwrapped)?;
        if let Some(record) = record {
            say(&record, spec);
        }
    }
    if !asked.is_pinned() {
        write_atomically(&known, id.revision.as_bytes())?;
    }
    pin(spec, &asked, &id.revision);
    Ok(())
}

/// Our own kinds of error without the context that writing adds.
fn unwrapped(e: anyhow::Error) -> anyhow::Error {
    match e.downcast::<InputError>() {
        Ok(input) => input.into(),
        Err(e) => match e.downcast::<crate::error::Interrupted>() {
            Ok(interrupted) => interrupted.into(),
            Err(e) => e,
        },
    }
}

fn say(record: &ExtractRecord, spec: &SourceSpec) {
    let blank = match record.blank {
        0 => String::new(),
        n => format!("; {n} rows without text left out"),
    };
    progress::say(format_args!(
        "{}: {} documents from {} of its files, {} received{blank}",
        spec.name(),
        record.documents,
        record.files.len(),
        indicatif::HumanBytes(record.bytes_received)
    ));
    if let Some(rows) = spec.rows.filter(|rows| record.documents < *rows) {
        progress::say(format_args!(
            "warning: {}: rows = {rows}, but the split has only {} documents",
            spec.name(),
            record.documents
        ));
    }
}

fn pin(spec: &mut SourceSpec, id: &RepoId, commit: &str) {
    spec.path = format!("hf:{}@{commit}", id.repo);
}

/// The file in which [`take`] leaves the documents of a source that names a commit; of any other source its own path.
pub fn extract(spec: &SourceSpec, cache: &Path) -> PathBuf {
    match spec.hub_id().and_then(|id| RepoId::parse(id).ok()) {
        Some(id) => extract_path(&folder(cache, &id), spec, &id.revision),
        None => PathBuf::from(&spec.path),
    }
}

fn folder(cache: &Path, id: &RepoId) -> PathBuf {
    cache.join("datasets").join(id.repo.replace('/', "--"))
}

/// The commit that a revision was when these documents were taken.
fn known_commit(id: &RepoId, known: &Path) -> Option<String> {
    if id.is_pinned() {
        return Some(id.revision.clone());
    }
    let commit = crate::input_file::read_to_string(known).ok()?;
    RepoId { repo: id.repo.clone(), revision: commit.trim().to_string() }
        .is_pinned()
        .then(|| commit.trim().into())
}

/// What decides the documents of a source, as a file name.
fn key(spec: &SourceSpec, revision: &str) -> String {
    let chosen = json!({
        "revision": revision, "config": spec.config, "split": spec.split, "rows": spec.rows,
        "shuffle_buffer": spec.shuffle_buffer, "shuffle_seed": spec.shuffle_seed, "version": 1,
    });
    format!("{:x}", Sha256::digest(chosen.to_string()))[..16].to_string()
}

fn extract_path(folder: &Path, spec: &SourceSpec, commit: &str) -> PathBuf {
    folder.join(format!("{}.jsonl", key(spec, commit)))
}

/// The commit and the shards that hold the split: those of the repository, or what the hub made of them.
fn find(client: &Client, asked: &RepoId, spec: &SourceSpec) -> Result<(RepoId, Vec<Shard>)> {
    let split = spec.split.as_deref().unwrap_or("train");
    let listing = list(client, asked, &asked.revision)?
        .map_err(|fault| fault.about(asked, "data set of this name, or no such revision"))?;
    let kinds = match listing.select(asked, spec.config.as_deref(), split)? {
        Selection::Shards(shards) => return Ok((listing.id(asked), shards)),
        Selection::Unread(kinds) => kinds,
    };
    let unread = || {
        format!(
            "{asked}: its kinds of files are not supported ({kinds}); expected .parquet, .jsonl, .csv or .tsv"
        )
    };
    if asked.revision != "main" {
        return Err(input_error(unread()));
    }
    let converted = match list(client, asked, CONVERTED)? {
        Ok(converted) => converted,
        Err(HubFault::Absent) => {
            return Err(input_error(format!("{}, and the hub has no parquet version of them", unread())));
        }
        Err(fault) => return Err(fault.about(asked, CONVERTED)),
    };
    match converted.select(asked, spec.config.as_deref(), split)? {
        Selection::Shards(shards) => Ok((converted.id(asked), shards)),
        Selection::Unread(_) => Err(input_error(unread())),
    }
}

/// Files, commit and metadata of a data set at a revision.
fn list(client: &Client, id: &RepoId, revision: &str) -> Result<Result<Listing, HubFault>> {
    let path = format!("/api/datasets/{}/revision/{}", id.repo, escaped(revision).replace('/', "%2F"));
    Ok(client.json(&path)?.and_then(|info| Listing::read(&info).map_err(HubFault::Other)))
}

/// A path as it stands in an address.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/=,@".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Reads shards until there are enough documents, and writes these to `part`.
fn fill<'a>(
    part: &Path,
    spec: &'a SourceSpec,
    id: &'a RepoId,
    asked: &'a RepoId,
    shards: &[Shard],
    client: &Arc<Client>,
    interrupt: &Interrupt,
) -> Result<ExtractRecord<'a>> {
    let wanted = spec.rows.unwrap_or(u64::MAX);
    let mut shuffle = Shuffle::new(spec.shuffle_buffer, spec.shuffle_seed.unwrap_or(0));
    let mut shards = shards.to_vec();
    shuffle.order(&mut shards);
    let mut out = BufWriter::new(File::create(part)?);
    let bar = progress::bar("reading", spec.rows.unwrap_or(0));
    let (mut written, mut blank, mut read) = (0, 0, Vec::new());
    let mut failed = None;
    for (i, shard) in shards.iter().enumerate() {
        let mut faults = Vec::new();
        if written >= wanted {
            break;
        }
        read.push(shard.path.clone());
        let (made, most) = (Cell::new(0u64), Cell::new(LEAST_EXPANSION));
        let mut take = |place: &dyn Fn() -> String, row: Result<Value, String>| {
            if row.as_ref().is_ok_and(is_blank) {
                blank += 1;
                return !interrupt.requested();
            }
            made.set(made.get().saturating_add(row.as_ref().map_or(0, size)));
            if made.get() > most.get() {
                faults.push(format!(
                    "{}: its documents have more than {} MiB, which is too much for a file of its size",
                    place(),
                    most.get() >> 20
                ));
                return false;
            }
            match row.and_then(|row| document(&row).map(|_| row)) {
                Ok(row) => {
                    if let Some(line) = shuffle.push(line(&row)) {
                        failed = writeln!(out, "{line}").err();
                        written += 1;
                        bar.set_position(written);
                    }
                }
                Err(fault) => faults.push(format!("{}: {fault}", place())),
            }
            written < wanted && faults.len() < MAX_FAULTS && failed.is_none() && !interrupt.requested()
        };
        let shown = format!("{} {}", asked, shard.path);
        let local = local(id, &shard.path);
        match &local {
            Some(path) => {
                let length = std::fs::metadata(path).map_or(0, |file| file.len());
                most.set(LEAST_EXPANSION.max(length.saturating_mul(MOST_EXPANSION)));
                rows_of(
                    shard.format,
                    LocalOrRemote::Local(crate::input_file::open(path)?),
                    &shown,
                    &mut take,
                )?
            }
            None => {
                let path = format!("/datasets/{}/resolve/{}/{}", id.repo, id.revision, escaped(&shard.path));
                let file = RemoteFile::open(client, path, shown.clone(), shard.format == Format::Parquet)?;
                most.set(LEAST_EXPANSION.max(file.length().saturating_mul(MOST_EXPANSION)));
                let all = file.length().saturating_mul(shards.len() as u64);
                if i == 0 && spec.rows.is_none() && all > LARGEST_WITHOUT_ROWS {
                    bail_input!(
                        "{}: {} files of about {} each; set how many documents to take, such as rows = 10000",
                        spec.name(),
                        shards.len(),
                        indicatif::HumanBytes(file.length())
                    );
                }
                rows_of(shard.format, LocalOrRemote::Remote(file.clone()), &shown, &mut take)
                    .map_err(|e| file.fault(e))?;
            }
        }
        interrupt.check(KEPT)?;
        if let Some(e) = failed {
            return Err(e).context("writing the documents");
        }
        InputError::unless_empty(faults)?;
    }
    for line in shuffle.rest().into_iter().take(usize::try_from(wanted - written).unwrap_or(usize::MAX)) {
        writeln!(out, "{line}")?;
        written += 1;
    }
    out.flush()?;
    bar.finish_and_clear();
    if written == 0 {
        bail_input!("{}: holds no documents", spec.name());
    }
    Ok(ExtractRecord {
        repo: &id.repo,
        revision: &asked.revision,
        commit: &id.revision,
        config: spec.config.as_deref(),
        split: spec.split.as_deref().unwrap_or("train"),
        rows: spec.rows,
        shuffle_buffer: spec.shuffle_buffer,
        shuffle_seed: spec.shuffle_buffer.map(|_| spec.shuffle_seed.unwrap_or(0)),
        documents: written,
        blank,
        files: read,
        bytes_received: client.received(),
    })
}

/// Whether a row has a column for text, and nothing to learn in it or elsewhere.
fn is_blank(row: &Value) -> bool {
    let is_empty = |text: &Value| match text {
        Value::String(text) => ["", "nan", "NaN"].contains(&text.trim()),
        other => other.is_null(),
    };
    let has = |key: &str| is_something(&row[key]);
    row.get("text").is_some_and(is_empty) && !has("messages") && !(has("prompt") && has("completion"))
}

enum LocalOrRemote {
    Local(File),
    Remote(RemoteFile),
}

/// Gives the rows of a shard to `take`.
fn rows_of(format: Format, file: LocalOrRemote, shown: &str, take: &mut Take) -> Result<()> {
    let fault = |e: std::io::Error| input_error(format!("{shown}: {e}"));
    let decoded = |file| match file {
        LocalOrRemote::Local(file) => compressed::decode(shown, file),
        LocalOrRemote::Remote(file) => compressed::decode(shown, file.reader()),
    };
    match (format, file) {
        (Format::Parquet, LocalOrRemote::Local(file)) => parquet::rows(file, shown, |_| {}, take),
        (Format::Parquet, LocalOrRemote::Remote(file)) => {
            let expect = file.clone();
            parquet::rows(file, shown, move |stretches| expect.expect(stretches), take)
        }
        (Format::JsonLines, file) => json_lines::rows(decoded(file).map_err(fault)?, shown, take),
        (Format::Csv, file) => csv::rows(decoded(file).map_err(fault)?, shown, take),
    }
}

/// The file of a shard in the cache of the hub's own tools, if they have fetched it.
fn local(id: &RepoId, path: &str) -> Option<PathBuf> {
    let folder = Cache::from_env().snapshot_of(RepoKind::Dataset, id, &id.revision);
    Some(folder.join(path)).filter(|file| file.is_file())
}

/// The columns of which a document is made, as a line of JSON.
fn line(row: &Value) -> String {
    let columns = row.as_object().into_iter().flatten();
    let kept = columns.filter(|(key, value)| COLUMNS.contains(&key.as_str()) && !value.is_null());
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>()).to_string()
}
