//! Files that are read whole: regular ones, up to a size. A pipe would never end, a device neither.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

use crate::limits::LARGEST_FILE;

/// Opens a regular file for reading. Does not wait for the writer of a named pipe.
///
/// # Errors
/// If it cannot be opened or is no regular file.
pub fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Error::new(ErrorKind::IsADirectory, "Is a directory"));
    }
    if !kind.is_file() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "not a regular file; pipes and devices are not read",
        ));
    }
    Ok(file)
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; if it is longer or cannot be read.
pub fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let too_long =
        || Error::new(ErrorKind::FileTooLarge, format!("longer than the {} MiB that are read", most >> 20));
    if length > most {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(too_long()),
        false => Ok(bytes),
    }
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`read_at_most`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, LARGEST_FILE)
}

/// The text of a regular file of at most `most` bytes.
///
/// # Errors
/// As [`read_at_most`]; if it is not UTF-8.
pub fn read_text_at_most(path: &Path, most: u64) -> Result<String> {
    let not_text = || Error::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8");
    String::from_utf8(read_at_most(path, most)?).map_err(|_| not_text())
}

/// The text of a regular file.
///
/// # Errors
/// As [`read_text_at_most`].
pub fn read_to_string(path: &Path) -> Result<String> {
    read_text_at_most(path, LARGEST_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_to_string(&file).unwrap(), "text");
        assert_eq!(read_at_most(&file, 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_at_most(&file, 4).unwrap(), b"text");
        assert_eq!(read(dir.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(read(&dir.path().join("absent")).unwrap_err().kind(), ErrorKind::NotFound);
        #[cfg(unix)]
        {
            let fifo = dir.path().join("fifo");
            assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
            assert!(read(&fifo).unwrap_err().to_string().contains("not a regular file"));
            assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("not a regular file"));
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("link", &link).unwrap();
            assert!(read(&link).is_err());
        }
    }
}
