//! Names that a server gives to files, folders and revisions. None of them may lead out of the folder that it is for.

use crate::limits::LONGEST_NAME;

/// Whether a name is one plain part of a path: no separator, no `..`, nothing hidden, nothing that a terminal interprets.
pub fn is_component(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether a path stays below the folder that it is joined to: relative, of at least one part, none of them `.` or `..`, without
/// backslashes, colons of drives, and control characters.
pub fn is_inner_path(path: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.len() <= LONGEST_NAME
            && !part.contains('\\')
            && !part.chars().any(char::is_control)
    };
    let has_drive = path.as_bytes().get(1) == Some(&b':');
    !has_drive && path.split('/').all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_server_is_one_component() {
        for good in ["0123abc", "a-b_c.d", &"f".repeat(64)] {
            assert!(is_component(good), "{good}");
        }
        let long = "a".repeat(300);
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "a\u{1b}b", "a\n", long.as_str()]
        {
            assert!(!is_component(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_path_of_a_server_stays_below_its_folder() {
        for good in ["a.jsonl", "data/train-00000.parquet", "with space/ü.csv", ".gitattributes"] {
            assert!(is_inner_path(good), "{good}");
        }
        for bad in
            ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a\\..\\b", "C:/x", "a\u{1b}[2J", "a/"]
        {
            assert!(!is_inner_path(bad), "{bad:?}");
        }
    }
}
