//! A file of a hub, read where it is asked for.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::client::Client;
use super::fault::HubFault;

/// Bytes asked for at once, at least and at most, where nothing says how many are needed.
const BLOCK: (u64, u64) = (1 << 20, 8 << 20);
/// Bytes at the end of a parquet file that are asked for first: its footer, in most files.
const TAIL: u64 = 64 << 10;

/// A file of a hub. Clones share what was read.
///
/// Readers that cannot pass on our errors get an [`io::Error`]; the error itself waits in [`RemoteFile::fault`].
#[derive(Debug, Clone)]
pub struct RemoteFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Arc<Client>,
    path: String,
    shown: String,
    length: u64,
    state: Mutex<ReadState>,
}

#[derive(Debug, Default)]
struct ReadState {
    /// Stretches that are read as one; nothing beyond the end of one is asked for together with it.
    stretches: Vec<(u64, u64)>,
    /// What was read last, by the stretch that it belongs to (the last: of none of them).
    held: Vec<(u64, Bytes)>,
    fault: Option<anyhow::Error>,
}

impl RemoteFile {
    /// Opens `path` of the hub, which messages call `shown`, by asking for its last bytes (`from_end`) or its first.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] about `shown`; [`crate::error::Interrupted`].
    pub fn open(client: &Arc<Client>, path: String, shown: String, from_end: bool) -> Result<Self> {
        let first = if from_end { 1 } else { BLOCK.0 };
        let (bytes, length) = match client.range(&path, 0, first)? {
            Ok((bytes, length)) => (Bytes::from(bytes), length),
            Err(HubFault::BeyondEnd) => (Bytes::new(), 0),
            Err(fault) => return Err(fault.about(&shown, "file of this name")),
        };
        let file = Inner { client: client.clone(), path, shown, length, state: Mutex::default() };
        let file = Self(Arc::new(file));
        let mut start = 0;
        let mut held = bytes;
        if from_end && length > 0 {
            start = length.saturating_sub(TAIL);
            held = file.ask(start, length - start)?;
        }
        file.state().held = vec![(start, held)];
        Ok(file)
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.0.length
    }

    /// Says which stretches (start, length) will be read, each from its beginning on.
    pub fn expect(&self, stretches: Vec<(u64, u64)>) {
        let mut state = self.state();
        let other = state.held.pop().unwrap_or_default();
        state.held = vec![(0, Bytes::new()); stretches.len()];
        state.held.push(other);
        state.stretches = stretches;
    }

    /// The error that a reader was not able to pass on, else `seen`.
    pub fn fault(&self, seen: anyhow::Error) -> anyhow::Error {
        self.state().fault.take().unwrap_or(seen)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ReadState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, start: u64, length: u64) -> Result<Bytes> {
        match self.0.client.range(&self.0.path, start, length)? {
            Ok((bytes, _)) => Ok(bytes.into()),
            Err(fault) => Err(fault.about(&self.0.shown, "part of it")),
        }
    }

    /// At least one byte from `start` on, and all of `least` unless the file ends; empty at its end.
    fn at(&self, start: u64, least: u64) -> io::Result<Bytes> {
        let least = least.min(self.length().saturating_sub(start));
        if least == 0 {
            return Ok(Bytes::new());
        }
        let mut state = self.state();
        let within = |&(from, length): &(u64, u64)| (from..from + length).contains(&start);
        let slot = state.stretches.iter().position(within);
        let end = slot.map_or(self.length(), |i| state.stretches[i].0 + state.stretches[i].1);
        let slot = slot.unwrap_or(state.held.len() - 1);
        let (from, held) = &state.held[slot];
        if *from <= start && start + least <= from + held.len() as u64 {
            return Ok(held.slice((start - from) as usize..));
        }
        // Twice as much as last time, where one stretch is read on and on.
        let block = if *from + held.len() as u64 == start { 2 * held.len() as u64 } else { 0 };
        let length = block.clamp(BLOCK.0, BLOCK.1).min(end.saturating_sub(start)).max(least);
        let mut bytes = Vec::with_capacity(length as usize);
        while (bytes.len() as u64) < length {
            let left = length - bytes.len() as u64;
            match self.ask(start + bytes.len() as u64, left.min(BLOCK.1)) {
                Ok(part) if part.is_empty() => break,
                Ok(part) => bytes.extend_from_slice(&part),
                Err(e) => {
                    let seen = io::Error::other(e.to_string());
                    state.fault.get_or_insert(e);
                    return Err(seen);
                }
            }
        }
        let bytes = Bytes::from(bytes);
        state.held[slot] = (start, bytes.clone());
        Ok(bytes)
    }
}

/// A file read from a place on.
pub struct RemoteReader {
    file: RemoteFile,
    position: u64,
}

impl RemoteFile {
    /// Reads from the beginning.
    pub fn reader(&self) -> RemoteReader {
        RemoteReader { file: self.clone(), position: 0 }
    }
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.at(self.position, 1)?;
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Length for RemoteFile {
    fn len(&self) -> u64 {
        self.length()
    }
}

impl ChunkReader for RemoteFile {
    type T = RemoteReader;

    fn get_read(&self, start: u64) -> Result<RemoteReader, ParquetError> {
        Ok(RemoteReader { file: self.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.at(start, length as u64)?;
        match bytes.len() < length {
            true => Err(ParquetError::EOF(format!("{length} bytes at {start}, but the file ends"))),
            false => Ok(bytes.slice(..length)),
        }
    }
}
