//! A server on this machine that speaks a Hugging Face hub's protocol for files: `GET /org/name/resolve/REV/FILE`
//! with byte ranges, ETag and commit; what it lacks is 404.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// A hub whose repositories are the folders `ROOT/org/name`.
pub struct Hub {
    /// For `HF_ENDPOINT`.
    pub endpoint: String,
    /// Paths that were asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    /// Serves until the test's process ends.
    pub fn serve(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (root, seen) = (root.to_path_buf(), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, seen) = (root.clone(), seen.clone());
                thread::spawn(move || while answer(&stream, &root, &seen).is_some() {});
            }
        });
        Self { endpoint, asked }
    }
}

/// One request of a connection; `None` when it has ended.
fn answer(stream: &TcpStream, root: &Path, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    if reader.read_line(&mut request).ok()? == 0 {
        return None;
    }
    let mut range = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
            let (from, to) = value.trim().split_once('-')?;
            range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()));
        }
    }
    let path = request.split_whitespace().nth(1)?.to_string();
    asked.lock().unwrap().push(path.clone());
    let mut out = stream;
    let file: Option<PathBuf> =
        path.trim_start_matches('/').split_once("/resolve/").and_then(|(repo, rest)| {
            let (_, file) = rest.split_once('/')?;
            Some(root.join(repo).join(file))
        });
    let Some(bytes) = file.and_then(|file| std::fs::read(file).ok()) else {
        out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok()?;
        return Some(());
    };
    let (from, to) = range.map_or((0, bytes.len() - 1), |(a, b)| (a, b.unwrap_or(bytes.len() - 1)));
    let to = to.min(bytes.len() - 1);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\netag: \"{:x}\"\r\nx-repo-commit: {COMMIT}\r\naccept-ranges: bytes\r\n\
         content-range: bytes {from}-{to}/{}\r\ncontent-length: {}\r\n\r\n",
        path.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b))),
        bytes.len(),
        to + 1 - from
    );
    out.write_all(head.as_bytes()).ok()?;
    out.write_all(&bytes[from..=to]).ok()?;
    Some(())
}
