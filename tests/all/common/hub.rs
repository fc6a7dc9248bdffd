//! A server on this machine that speaks a Hugging Face hub's protocol: files by `GET /org/name/resolve/REV/FILE` and
//! `GET /datasets/org/name/resolve/REV/FILE` with byte ranges, ETag and commit, and `GET
//! /api/datasets/org/name/revision/REV`; what it lacks is 404.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// A hub whose models are the folders `ROOT/org/name`, and whose data sets are `ROOT/datasets/org/name`, with `.card.json`
/// as their metadata and `.commit` as their commit; the branch of converted parquet is `ROOT/datasets/org/name.parquet`.
pub struct Hub {
    /// For `HF_ENDPOINT`.
    pub endpoint: String,
    /// Paths that were asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
    seen: Arc<Seen>,
}

/// What happened, and what is to happen.
#[derive(Default)]
struct Seen {
    ranges: Mutex<Vec<(String, u64)>>,
    tokens: Mutex<Vec<Option<String>>>,
    faults: Mutex<VecDeque<Fault>>,
    faults_of: Mutex<Vec<(String, Fault)>>,
    said: Mutex<Said>,
}

/// What the hub says of its files in place of the truth.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// `x-repo-commit`.
    pub commit: Option<String>,
    /// `etag`.
    pub etag: Option<String>,
    /// Further files of every data set.
    pub files: Vec<String>,
}

/// What becomes of the next request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// It is answered as it should be.
    None,
    /// A status and nothing else; 429 and 503 with `Retry-After: 0`.
    Status(u16),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// It is never answered.
    Silence,
    /// It is sent on to the same file on another host, as hubs do with what lies in their storage.
    Redirect,
    /// The whole file is sent, whatever range is asked for.
    Whole,
}

/// The commit that a hub without `.commit` says it has.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    /// Serves until the test's process ends.
    pub fn serve(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Seen::default()));
        let (root, paths, all) = (root.to_path_buf(), asked.clone(), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, paths, all) = (root.clone(), paths.clone(), all.clone());
                thread::spawn(move || while answer(&stream, &root, &paths, &all).is_some() {});
            }
        });
        Self { endpoint, asked, seen }
    }

    /// What becomes of the next requests.
    pub fn next(&self, faults: &[Fault]) {
        self.seen.faults.lock().unwrap().extend(faults);
    }

    /// What becomes of the next requests for paths that end so, in order.
    pub fn next_of(&self, end: &str, faults: &[Fault]) {
        self.seen.faults_of.lock().unwrap().extend(faults.iter().map(|fault| (end.to_string(), *fault)));
    }

    /// What the hub says from now on.
    pub fn says(&self, said: Said) {
        *self.seen.said.lock().unwrap() = said;
    }

    /// Bytes asked for of files whose path ends so.
    pub fn bytes_asked(&self, end: &str) -> u64 {
        let ranges = self.seen.ranges.lock().unwrap();
        ranges.iter().filter(|(path, _)| path.ends_with(end)).map(|(_, n)| n).sum()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.asked.lock().unwrap().clear();
        self.seen.ranges.lock().unwrap().clear();
        self.seen.tokens.lock().unwrap().clear();
    }

    /// `authorization` of each request.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.seen.tokens.lock().unwrap().clone()
    }
}

/// The folder of a data set at a revision, if there is one.
fn dataset(root: &Path, repo: &str, revision: &str) -> Option<(PathBuf, String)> {
    let main = root.join("datasets").join(repo);
    let converted = root.join("datasets").join(format!("{repo}.parquet"));
    let commit = |folder: &Path| {
        std::fs::read_to_string(folder.join(".commit")).map_or(COMMIT.to_string(), |c| c.trim().to_string())
    };
    let found = match revision {
        "main" => main,
        "refs%2Fconvert%2Fparquet" => converted,
        revision => [main, converted].into_iter().find(|f| f.is_dir() && commit(f) == revision)?,
    };
    let commit = commit(&found);
    found.is_dir().then_some((found, commit))
}

fn files(folder: &Path, below: &Path, out: &mut Vec<Value>) {
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files(folder, &path, out),
            false => out.push(json!({ "rfilename": path.strip_prefix(folder).unwrap() })),
        }
    }
}

/// What the API says of a data set.
fn describe(root: &Path, rest: &str, said: &Said) -> Option<Vec<u8>> {
    let (repo, revision) = rest.split_once("/revision/")?;
    let (folder, commit) = dataset(root, repo, revision)?;
    let card = std::fs::read_to_string(folder.join(".card.json")).unwrap_or("{}".into());
    let mut siblings = Vec::new();
    files(&folder, &folder, &mut siblings);
    siblings.extend(said.files.iter().map(|file| json!({ "rfilename": file })));
    let commit = said.commit.clone().unwrap_or(commit);
    let card: Value = serde_json::from_str(&card).unwrap();
    Some(
        json!({ "id": repo, "sha": commit, "cardData": card, "siblings": siblings }).to_string().into_bytes(),
    )
}

/// The file that a path names.
fn file(root: &Path, path: &str) -> Option<PathBuf> {
    let (repo, rest) = path.trim_start_matches('/').split_once("/resolve/")?;
    let (revision, file) = rest.split_once('/')?;
    let folder = match repo.strip_prefix("datasets/") {
        Some(repo) => dataset(root, repo, revision)?.0,
        None => root.join(repo),
    };
    Some(folder.join(file.replace("%20", " ")))
}

/// One request of a connection; `None` when it has ended.
fn answer(stream: &TcpStream, root: &Path, asked: &Mutex<Vec<String>>, seen: &Seen) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    if reader.read_line(&mut request).ok()? == 0 {
        return None;
    }
    let (mut range, mut token) = (None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("range: bytes=") {
            let (from, to) = value.trim().split_once('-')?;
            range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()));
        }
        if lower.starts_with("authorization:") {
            token = line.split_once(':').map(|(_, value)| value.trim().to_string());
        }
    }
    let path = request.split_whitespace().nth(1)?.to_string();
    let path = path.strip_prefix("/storage").unwrap_or(&path).to_string();
    asked.lock().unwrap().push(path.clone());
    seen.tokens.lock().unwrap().push(token);
    let mut fault = seen.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
    let mut faults_of = seen.faults_of.lock().unwrap();
    if let Some(at) = faults_of.iter().position(|(end, _)| path.ends_with(end.as_str())) {
        fault = faults_of.remove(at).1;
    }
    drop(faults_of);
    let said = seen.said.lock().unwrap().clone();
    let mut out = stream;
    let mut refuse = |status: u16, header: &str| {
        out.write_all(format!("HTTP/1.1 {status} Fault\r\n{header}content-length: 0\r\n\r\n").as_bytes()).ok()
    };
    match fault {
        Fault::Status(status) => return refuse(status, "retry-after: 0\r\n"),
        Fault::Silence => {
            thread::sleep(std::time::Duration::from_secs(120));
            return None;
        }
        Fault::Redirect => {
            let port = stream.local_addr().ok()?.port();
            return refuse(302, &format!("location: http://localhost:{port}/storage{path}\r\n"));
        }
        Fault::None | Fault::Cut(_) | Fault::Whole => {}
    }
    if let Some(rest) = path.strip_prefix("/api/datasets/") {
        let Some(body) = describe(root, rest, &said) else { return refuse(404, "") };
        out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes())
            .ok()?;
        return out.write_all(&body).ok();
    }
    let Some(bytes) = file(root, &path).and_then(|file| std::fs::read(file).ok()) else {
        return refuse(404, "");
    };
    if range.is_some_and(|(from, _)| from >= bytes.len()) {
        return refuse(416, &format!("content-range: bytes */{}\r\n", bytes.len()));
    }
    let range = range.filter(|_| fault != Fault::Whole);
    let (from, to) = range.map_or((0, bytes.len() - 1), |(a, b)| (a, b.unwrap_or(bytes.len() - 1)));
    let to = to.min(bytes.len() - 1);
    seen.ranges.lock().unwrap().push((path.clone(), (to + 1 - from) as u64));
    let hash = path.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let (etag, commit) = (said.etag.unwrap_or(format!("{hash:x}")), said.commit.unwrap_or(COMMIT.into()));
    let status = match fault {
        Fault::Whole => "200 OK".to_string(),
        _ => format!(
            "206 Partial Content\r\naccept-ranges: bytes\r\ncontent-range: bytes {from}-{to}/{}",
            bytes.len()
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\netag: \"{etag}\"\r\nx-repo-commit: {commit}\r\ncontent-length: {}\r\n\r\n",
        to + 1 - from
    );
    out.write_all(head.as_bytes()).ok()?;
    if let Fault::Cut(n) = fault {
        out.write_all(&bytes[from..=to][..n.min(to + 1 - from)]).ok()?;
        out.shutdown(std::net::Shutdown::Both).ok();
        return None;
    }
    out.write_all(&bytes[from..=to]).ok()
}
