//! Files that may be compressed, by the end of their names.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Result;

use crate::error::input_error;
use crate::input_file;

/// What stands behind the name of a compressed file: gzip, Zstandard.
pub(super) const ENDINGS: [&str; 2] = [".gz", ".zst"];

/// The file's content, decompressed as it is read.
///
/// # Errors
/// An input error if the file cannot be opened. That it is cut or no such file shows in reading.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let fault = |e: std::io::Error| input_error(format!("{}: {e}", path.display()));
    decode(&path.to_string_lossy(), input_file::open(path).map_err(fault)?).map_err(fault)
}

/// What a file of this name holds, decompressed as it is read.
///
/// # Errors
/// If the decompressor cannot be made.
pub(super) fn decode(name: &str, file: impl Read + 'static) -> std::io::Result<Box<dyn BufRead>> {
    let name = name.to_lowercase();
    Ok(match ENDINGS.map(|ending| name.ends_with(ending)) {
        // Several members one after the other are one file, as gzip has it.
        [true, _] => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
        [_, true] => Box::new(BufReader::new(zstd::Decoder::new(file)?)),
        _ => Box::new(BufReader::new(file)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{Document, read};

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_files_hold_what_plain_ones_do() {
        let dir = tempfile::tempdir().unwrap();
        let (lines, table) = ("{\"text\": \"one\"}\n{\"text\": \"zwei\"}\n", "id,text\n1,one\n2,zwei\n");
        let files = [
            ("a.jsonl", lines.as_bytes().to_vec()),
            ("a.jsonl.gz", gz(lines.as_bytes())),
            ("two-members.jsonl.gz", [gz(&lines.as_bytes()[..16]), gz(&lines.as_bytes()[16..])].concat()),
            ("a.ndjson.zst", zstd::encode_all(lines.as_bytes(), 3).unwrap()),
            ("a.csv", table.into()),
            ("a.CSV.GZ", gz(table.as_bytes())),
            ("a.csv.zst", zstd::encode_all(table.as_bytes(), 3).unwrap()),
            ("a.tsv", table.replace(',', "\t").into()),
        ];
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            let texts: Vec<String> = read(&path).unwrap().iter().map(Document::full_text).collect();
            assert_eq!(texts, ["one", "zwei"], "{name}");
            if name.ends_with("gz") || name.ends_with("zst") {
                std::fs::write(&path, &bytes[..bytes.len() - 6]).unwrap();
                let e = read(&path).unwrap_err();
                assert!(e.is::<crate::error::InputError>() && e.to_string().contains(name), "{e}");
            }
        }
        let path = dir.path().join("a.txt.gz");
        std::fs::write(&path, gz(b"one")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("unknown kind of data"));
    }
}
