//! The direction of imports: modules use only what lies below them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each top-level module may use of the others, beside itself.
///
/// Floor 0 is open to everyone above, except `pb`, which only the edge may see.
const ALLOWED: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("clock", &[]),
    ("docs", &[]),
    ("metrics", &[]),
    ("pb", &[]),
    ("secret", &[]),
    ("shutdown", &[]),
    ("telemetry", &[]),
    ("domain", &["secret"]),
    ("launchdarkly", &["backoff", "clock", "domain", "secret"]),
    ("store", &["clock", "domain", "secret"]),
    ("sandbox", &["clock"]),
    ("delivery", &["backoff", "domain", "secret"]),
    (
        "server",
        &[
            "clock", "delivery", "domain", "metrics", "pb", "secret", "store",
        ],
    ),
    (
        "config",
        &["delivery", "docs", "launchdarkly", "server", "telemetry"],
    ),
    (
        "app",
        &[
            "backoff",
            "clock",
            "config",
            "delivery",
            "domain",
            "launchdarkly",
            "metrics",
            "pb",
            "server",
            "shutdown",
            "store",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "backoff",
            "config",
            "pb",
            "sandbox",
            "server",
            "shutdown",
            "store",
            "telemetry",
        ],
    ),
    ("main", &["cli"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The top-level modules that a source names after `crate::` (or, in the binary, the crate).
fn uses(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut modules = Vec::new();
    for root in ["crate::", "launchdarkly_connector::"] {
        for (at, _) in code.match_indices(root) {
            if !code[..at].ends_with('$') {
                modules.extend(heads(&code[at + root.len()..]));
            }
        }
    }
    modules
}

/// The first segments of a use path: one, or those of a `{…}` group.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let (mut depth, mut names, mut start) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && (c.is_alphanumeric() || c == '_') => {
                names.push(word(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut broken = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let top = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let module = top.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let allowed = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .map(|(_, uses)| *uses);
        let Some(allowed) = allowed else {
            broken.push(format!("{module} has no floor: give it one in this table"));
            continue;
        };
        for used in uses(&fs::read_to_string(&file).unwrap()) {
            if used != module && !allowed.contains(&used.as_str()) {
                broken.push(format!("{} uses crate::{used}", relative.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "imports against the direction:\n{}",
        broken.join("\n")
    );
}

#[test]
fn use_paths_are_read_in_every_form() {
    let source =
        "use crate::{\n  domain::{A, store},\n  clock,\n};\nlet x = crate::pb::X;\n// crate::no\n";
    assert_eq!(uses(source), ["domain", "clock", "pb"]);
}
