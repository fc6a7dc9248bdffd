//! Scalars in TensorBoard's event files.
//!
//! A file is a sequence of TFRecord frames (length u64, masked CRC-32C of the length, payload, masked CRC-32C
//! of the payload; tensorflow `core/lib/io/record_writer.h`), each holding an `Event` protobuf
//! (`core/util/event.proto`): wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary =
//! 5 { value = 1 { tag = 1 (string), simple_value = 2 (float) } }, session_log = 7 { status = 1 (START = 1) }.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// An open event file.
pub struct EventWriter {
    file: File,
}

impl EventWriter {
    /// A new `events.out.tfevents.<seconds>.trainer.<process>` in a folder. Where there are older
    /// ones, it says its first step, from which on TensorBoard drops what they hold: the steps between the checkpoint and
    /// the end of a killed run.
    ///
    /// # Errors
    /// If the folder is not writable.
    pub fn create(dir: &Path, first: i64) -> Result<Self> {
        // TensorBoard reads the files in the order of their names: a later one must have a later second.
        let older = latest(dir);
        let seconds = (now() as u64).max(older.map_or(0, |second| second + 1));
        let name = format!("events.out.tfevents.{seconds:010}.trainer.{}", std::process::id());
        let path = dir.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut writer = Self { file: file.with_context(|| format!("creating {}", path.display()))? };
        let mut event = Vec::new();
        put_double(&mut event, 1, now());
        put_bytes(&mut event, 3, b"brain.Event:2");
        writer.frame(&event)?;
        if older.is_some() {
            let mut start = Vec::new();
            put_key(&mut start, 1, 0);
            put_varint(&mut start, 1);
            writer.event(first, 7, &start)?;
        }
        Ok(writer)
    }

    /// Writes the scalars of one step.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn write(&mut self, step: i64, scalars: &[(&str, f32)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_key(&mut entry, 2, 5);
            entry.extend(value.to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        self.event(step, 5, &summary)
    }

    /// An event of a step, with one field.
    fn event(&mut self, step: i64, field: u64, content: &[u8]) -> Result<()> {
        let mut event = Vec::new();
        put_double(&mut event, 1, now());
        put_key(&mut event, 2, 0);
        put_varint(&mut event, step as u64);
        put_bytes(&mut event, field, content);
        self.frame(&event)
    }

    fn frame(&mut self, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        let mut bytes = length.to_vec();
        bytes.extend(masked_crc32c(&length).to_le_bytes());
        bytes.extend(payload);
        bytes.extend(masked_crc32c(payload).to_le_bytes());
        self.file.write_all(&bytes).context("writing the TensorBoard file")
    }
}

/// The latest second in the names of the event files of a folder.
fn latest(dir: &Path) -> Option<u64> {
    let names = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.file_name());
    let second = |name: std::ffi::OsString| {
        name.to_str()?.strip_prefix("events.out.tfevents.")?.split('.').next()?.parse().ok()
    };
    names.filter_map(second).max()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs_f64()).unwrap_or_default()
}

fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_double(out: &mut Vec<u8>, field: u64, v: f64) {
    put_key(out, field, 1);
    out.extend(v.to_le_bytes());
}

/// CRC-32C (Castagnoli), rotated and shifted as TFRecord does.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for b in bytes {
        crc ^= *b as u32;
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_standard_check_string() {
        // RFC 3720's check value of "123456789" is 0xE3069283.
        let unmasked = masked_crc32c(b"123456789").wrapping_sub(0xA282_EAD8).rotate_left(15);
        assert_eq!(unmasked, 0xE306_9283);
    }
}
