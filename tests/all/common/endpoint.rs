//! A chat-completions server whose answers are scripted, and that can fail in every way that one does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Says this, and counts 10 tokens read and 5 written.
    Say(String),
    /// 200 with this body.
    Body(Value),
    /// A status with a header line (or none) and a body.
    Status(u16, &'static str, &'static str),
    /// Says nothing for so long.
    Hang(Duration),
    /// Closes the connection in the middle of the body.
    Torn,
    /// A body that HTTP calls whole and JSON does not.
    Truncated,
    /// Closes the connection at once.
    Gone,
}

/// A request, as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The body.
    pub body: Value,
    /// The header.
    pub authorization: Option<String>,
}

impl Seen {
    /// What the last message says.
    pub fn question(&self) -> &str {
        self.body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap()
    }
}

type Script = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

/// The server; its threads end with the test.
pub struct Server {
    /// What stands before `/chat/completions`.
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// A server that replies to each request, which `script` gets with its number from 0.
    pub fn new(script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (script, all): (Arc<Script>, _) = (Arc::new(script), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, all) = (script.clone(), all.clone());
                thread::spawn(move || serve(stream, &*script, &all));
            }
        });
        Self { url, seen }
    }

    /// A server that gives these replies in order, the last one from then on.
    pub fn replies(replies: Vec<Reply>) -> Self {
        Self::new(move |n, _| replies[n.min(replies.len() - 1)].clone())
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Their number.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn serve(stream: TcpStream, script: &Script, all: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length, mut authorization) = (String::new(), 0, None);
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    assert!(line.starts_with("POST /v1/chat/completions "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => authorization = Some(value.trim().to_string()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let seen = Seen { body: serde_json::from_slice(&body).unwrap(), authorization };
    let n = {
        let mut all = all.lock().unwrap();
        all.push(seen.clone());
        all.len() - 1
    };
    respond(stream, &script(n, &seen));
}

/// A chat completion that says something.
pub fn completion(text: &str) -> Value {
    json!({
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
}

fn respond(mut stream: TcpStream, reply: &Reply) {
    let mut send = |status: u16, header: &str, body: &str, length: usize| {
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        // The client may be gone by now.
        let _ = write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{header}connection: close\r\n\r\n{body}"
        );
        let _ = stream.flush();
    };
    let whole = completion("never read").to_string();
    match reply {
        Reply::Say(text) => {
            let body = completion(text).to_string();
            send(200, "", &body, body.len());
        }
        Reply::Body(body) => send(200, "", &body.to_string(), body.to_string().len()),
        Reply::Status(status, header, body) => send(*status, header, body, body.len()),
        Reply::Hang(time) => thread::sleep(*time),
        Reply::Torn => send(200, "", &whole[..whole.len() / 2], whole.len()),
        Reply::Truncated => send(200, "", &whole[..whole.len() / 2], whole.len() / 2),
        Reply::Gone => {}
    }
}
