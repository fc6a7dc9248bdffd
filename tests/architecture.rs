//! The structure of the crate: dependencies point one way, files form no cycle, names say one thing.
//!
//! The order of modules is the numbered list at the top of `src/lib.rs`. The test reads every `crate::`, `super::` and
//! `self::` path in the sources, so an inline path counts as much as a `use`. Code under `#[cfg(test)]` may use anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module by its path below the crate: `["diff", "lexicon"]`; the crate root is empty.
type Module = Vec<String>;

/// What `src/cli` leaves to the library: it parses flags, calls one function, prints.
const NOT_IN_CLI: [&str; 4] = ["model", "train", "diff", "data"];

/// The source files, each with its tokens outside tests.
fn sources() -> BTreeMap<Module, Vec<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files
        .into_iter()
        .map(|file| {
            let below = file.strip_prefix(&src).unwrap().with_extension("");
            let mut module: Module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if module.last().is_some_and(|name| name == "mod" || name == "lib") {
                module.pop();
            }
            (module, without_tests(tokens(&fs::read_to_string(&file).unwrap())))
        })
        .collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Names, `::` and single signs; without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = Vec::new();
    let mut i = 0;
    while i < text.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => i = (i..text.len()).find(|&j| at(j) == '\n').unwrap_or(text.len()),
            '/' if at(i + 1) == '*' => {
                let end = (i + 2..text.len()).find(|&j| at(j) == '*' && at(j + 1) == '/');
                i = end.unwrap_or(text.len()) + 2;
            }
            '"' => i = end_of_string(&text, i + 1),
            '\'' => {
                // A character, or a lifetime.
                let quoted = if at(i + 1) == '\\' { (i + 3..i + 14).find(|&j| at(j) == '\'') } else { None };
                i = quoted.or((at(i + 2) == '\'').then_some(i + 2)).unwrap_or(i) + 1;
            }
            ':' if at(i + 1) == ':' => {
                out.push("::".into());
                i += 2;
            }
            c if is_name(c) => {
                let end = (i..=text.len()).find(|&j| !is_name(at(j))).unwrap();
                let name: String = text[i..end].iter().collect();
                let hashes = (end..text.len()).take_while(|&j| at(j) == '#').count();
                if ["r", "br"].contains(&name.as_str()) && at(end + hashes) == '"' {
                    let close = |j: &usize| at(*j) == '"' && (1..=hashes).all(|k| at(*j + k) == '#');
                    i = (end + hashes + 1..text.len()).find(close).unwrap_or(text.len()) + 1 + hashes;
                } else {
                    out.push(name);
                    i = end;
                }
            }
            c => {
                if !c.is_whitespace() {
                    out.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    out
}

/// The place after a string that begins before `i`.
fn end_of_string(text: &[char], mut i: usize) -> usize {
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Leaves out what is under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let is_cfg = tokens[i..].iter().map(String::as_str).take(4).eq(["#", "[", "cfg", "("]);
        let end = is_cfg.then(|| closing(&tokens, i + 1));
        match end {
            Some(end) if tokens[i..end].iter().any(|t| t == "test") => i = end_of_item(&tokens, end + 1),
            _ => {
                out.push(tokens[i].clone());
                i += 1;
            }
        }
    }
    out
}

/// The place of the bracket that closes the one at `open`.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len()
}

/// The place after an item that begins at `i`: after its `;` or its braces.
fn end_of_item(tokens: &[String], mut i: usize) -> usize {
    while i < tokens.len() {
        match tokens[i].as_str() {
            ";" => return i + 1,
            "{" => return closing(tokens, i) + 1,
            "(" | "[" => i = closing(tokens, i) + 1,
            _ => i += 1,
        }
    }
    i
}

/// Every path that begins with `crate`, `super` or `self`, from the root of the crate.
fn paths(module: &Module, tokens: &[String]) -> Vec<Module> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let begins = ["crate", "super", "self"].contains(&tokens[i].as_str());
        let goes_on = tokens.get(i + 1).is_some_and(|t| t == "::");
        let follows = i > 0 && (tokens[i - 1] == "::" || tokens[i - 1] == "$");
        if begins && goes_on && !follows {
            let mut front = match tokens[i].as_str() {
                "crate" => Vec::new(),
                "super" => module[..module.len().saturating_sub(1)].to_vec(),
                _ => module.clone(),
            };
            i += 2;
            while tokens.get(i).is_some_and(|t| t == "super") {
                front.pop();
                i += 2;
            }
            i = tree(tokens, i, &front, &mut out);
        } else {
            i += 1;
        }
    }
    out
}

/// Reads `a::b::{c, d::e}` at `i`; gives the place after it.
fn tree(tokens: &[String], mut i: usize, front: &Module, out: &mut Vec<Module>) -> usize {
    let mut path = front.clone();
    loop {
        match tokens.get(i).map(String::as_str) {
            Some("{") => {
                let end = closing(tokens, i);
                i += 1;
                while i < end {
                    i = tree(tokens, i, &path, out);
                    while i < end && tokens[i] != "," {
                        i += 1; // `as name`
                    }
                    i += 1;
                }
                return end + 1;
            }
            Some("self") => i += 1,
            Some(name) => {
                path.push(name.to_string());
                i += 1;
            }
            None => break,
        }
        if tokens.get(i).is_none_or(|t| t != "::") {
            break;
        }
        i += 1;
    }
    out.push(path);
    i
}

/// For each file the files whose items it names.
fn arrows(sources: &BTreeMap<Module, Vec<String>>) -> BTreeMap<Module, BTreeSet<Module>> {
    let file_of = |path: &Module| -> Module {
        let length = (0..=path.len()).rev().find(|&n| sources.contains_key(&path[..n])).unwrap();
        path[..length].to_vec()
    };
    let of = |(module, tokens): (&Module, &Vec<String>)| {
        let used: BTreeSet<Module> =
            paths(module, tokens).iter().map(file_of).filter(|used| used != module).collect();
        (module.clone(), used)
    };
    sources.iter().map(of).collect()
}

/// The layers of the list in `src/lib.rs`, lowest first.
fn order() -> Vec<Vec<String>> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! "));
    let numbered = lines.filter_map(|line| {
        let (number, rest) = line.split_once(". ")?;
        number.parse::<usize>().ok().map(|_| rest)
    });
    let names =
        |line: &str| line.split("[`").skip(1).map(|s| s.split('`').next().unwrap().to_string()).collect();
    numbered.map(names).collect()
}

fn shown(module: &Module) -> String {
    if module.is_empty() { "lib".into() } else { module.join("/") }
}

#[test]
fn modules_use_only_what_comes_before_them() {
    let sources = sources();
    let order = order();
    let layer = |name: &str| order.iter().position(|layer| layer.iter().any(|n| n == name));
    let mut faults = Vec::new();
    for module in sources.keys().filter(|m| m.len() == 1 && m[0] != "main") {
        if layer(&module[0]).is_none() {
            faults.push(format!("{} is missing in the numbered list of src/lib.rs", module[0]));
        }
    }
    for name in order.iter().flatten().filter(|name| !sources.contains_key(&vec![name.to_string()])) {
        faults.push(format!("src/lib.rs lists {name}, which is no module"));
    }
    for (module, used) in arrows(&sources).iter().filter(|(m, _)| !m.is_empty() && m[0] != "main") {
        for used in used.iter().filter(|used| !used.is_empty()) {
            if layer(&module[0]) < layer(&used[0]) {
                faults.push(format!("{} uses {}, which comes after it", shown(module), shown(used)));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_form_no_cycle() {
    let arrows = arrows(&sources());
    // A module and its own children are one thing.
    let related = |a: &Module, b: &Module| a.starts_with(b) || b.starts_with(a);
    let next = |m: &Module| arrows[m].iter().filter(|used| !related(m, used)).cloned().collect::<Vec<_>>();
    // What can be reached from each file; a file that reaches itself lies on a cycle.
    let mut faults = Vec::new();
    for start in arrows.keys() {
        let mut came_from: BTreeMap<Module, Module> = BTreeMap::new();
        let mut open = vec![start.clone()];
        while let Some(module) = open.pop() {
            for used in next(&module) {
                if !came_from.contains_key(&used) {
                    came_from.insert(used.clone(), module.clone());
                    open.push(used);
                }
            }
        }
        if came_from.contains_key(start) {
            let mut way = vec![shown(start)];
            let mut at = came_from[start].clone();
            while at != *start {
                way.push(shown(&at));
                at = came_from[&at].clone();
            }
            way.push(shown(start));
            way.reverse();
            faults.push(way.join(" → "));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_command_layer_leaves_the_work_to_the_library() {
    let sources = sources();
    let mut faults = Vec::new();
    for (module, used) in arrows(&sources).iter().filter(|(m, _)| m.first().is_some_and(|name| name == "cli"))
    {
        for used in
            used.iter().filter(|used| used.first().is_some_and(|name| NOT_IN_CLI.contains(&name.as_str())))
        {
            faults.push(format!("{} uses {}; expected one call of the library", shown(module), shown(used)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_name_means_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, tokens) in sources() {
        for i in 0..tokens.len().saturating_sub(1) {
            let is_type = ["struct", "enum", "trait", "union"].contains(&tokens[i].as_str());
            let is_public = i > 0 && (tokens[i - 1] == "pub" || tokens[i - 1] == ")");
            if is_type && is_public {
                places.entry(tokens[i + 1].clone()).or_default().push(shown(&module));
            }
        }
    }
    let twice: Vec<String> = places
        .iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(twice.is_empty(), "{}", twice.join("\n"));
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = r##"
        use crate::a::{self, b::{C, D as E}, f}; // crate::comment
        use super::g;
        fn h() -> crate::i::J { "crate::string"; r#"crate::raw " string"#; 'c'; '\''; x::<'static>(); crate::k::l() }
        #[cfg(test)]
        mod tests { use crate::only_in_tests; }
        #[cfg(all(test, unix))]
        use crate::only_in_tests;
        fn m() { self::n::o(); super::super::p(); }
    "##;
    let module: Module = ["q", "r"].map(String::from).to_vec();
    let found: Vec<String> =
        paths(&module, &without_tests(tokens(text))).iter().map(|path| path.join("::")).collect();
    let expected = ["a", "a::b::C", "a::b::D", "a::f", "q::g", "i::J", "k::l", "q::r::n::o", "p"];
    assert_eq!(found, expected);
}
