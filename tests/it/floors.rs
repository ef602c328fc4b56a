//! The direction of imports: modules use only what lies below them, and no two files each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each top-level module may use of the others, beside itself.
///
/// Floor 0 is open to all floors above, except `pb`, which only the edge may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("clock", &[]),
    ("docs", &[]),
    ("loopback", &[]),
    ("pb", &[]),
    ("reload", &[]),
    ("secret", &[]),
    ("shutdown", &["reload"]),
    ("telemetry", &[]),
    ("domain", &["docs", "secret"]),
    ("metrics", &["domain", "secret"]),
    (
        "launchdarkly",
        &["backoff", "clock", "docs", "domain", "loopback", "secret"],
    ),
    ("store", &["clock", "domain", "secret"]),
    ("sandbox", &["clock"]),
    ("delivery", &["backoff", "domain", "secret"]),
    (
        "registry",
        &["backoff", "clock", "delivery", "domain", "metrics", "store"],
    ),
    (
        "server",
        &[
            "clock", "delivery", "docs", "domain", "metrics", "pb", "registry", "reload", "secret",
        ],
    ),
    (
        "config",
        &["delivery", "docs", "launchdarkly", "server", "telemetry"],
    ),
    (
        "app",
        &[
            "config",
            "delivery",
            "domain",
            "launchdarkly",
            "metrics",
            "pb",
            "registry",
            "reload",
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
            "domain",
            "loopback",
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

/// The source of a module without its tests.
struct Module {
    /// As in `["delivery", "lane"]`; the crate's own has none.
    path: Vec<String>,
    code: String,
}

/// Every module that is compiled into the shipped binary, with its path in the crate.
fn modules() -> BTreeMap<Vec<String>, Module> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let all = files.into_iter().map(|file| {
        let relative = file.strip_prefix(&src).unwrap().with_extension("");
        let mut path: Vec<_> = relative
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        path.pop_if(|last| ["mod", "lib"].contains(&last.as_str()));
        let text = fs::read_to_string(&file).unwrap();
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = shipped
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        (path.clone(), Module { path, code })
    });
    let mut all: BTreeMap<_, _> = all.collect();
    let tests: Vec<_> = all.values().flat_map(Module::tests).collect();
    all.retain(|path, _| !tests.iter().any(|test| path.starts_with(test)));
    all
}

impl Module {
    /// The modules that it declares for tests alone.
    fn tests(&self) -> Vec<Vec<String>> {
        let declared = self.code.split("#[cfg(test)]\n").skip(1);
        declared
            .filter_map(|after| after.lines().next()?.strip_suffix(';')?.split_once("mod "))
            .map(|(_, name)| [&self.path[..], &[name.to_owned()]].concat())
            .collect()
    }

    /// The paths that it names after `crate`, `self` or `super`, from the crate's root.
    fn references(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for root in ["crate::", "super::", "self::"] {
            for (at, _) in self.code.match_indices(root) {
                let before = &self.code[..at];
                let is_inside =
                    before.ends_with(|c: char| c.is_alphanumeric() || "_$:".contains(c));
                if is_inside {
                    continue;
                }
                let mut rest = &self.code[at..];
                let mut base = if root == "crate::" {
                    vec![]
                } else {
                    self.path.clone()
                };
                rest = rest.strip_prefix("crate::").unwrap_or(rest);
                rest = rest.strip_prefix("self::").unwrap_or(rest);
                while let Some(after) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = after;
                }
                paths(base, rest, &mut found);
            }
        }
        found
    }
}

/// Spreads a use tree, which may hold groups, into paths; answers what follows it.
fn paths<'a>(mut base: Vec<String>, tree: &'a str, found: &mut Vec<Vec<String>>) -> &'a str {
    if let Some(mut rest) = tree.strip_prefix('{') {
        loop {
            rest = paths(base.clone(), rest.trim_start(), found).trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = tree
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(tree.len());
    let (word, rest) = tree.split_at(end);
    base.push(word.to_owned());
    match rest.strip_prefix("::") {
        Some(deeper) => paths(base, deeper, found),
        None => {
            found.push(base);
            // An alias belongs to what was named.
            rest.strip_prefix(" as ").map_or(rest, |alias| {
                alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            })
        }
    }
}

/// The files that each file uses, but for its own folder's module and those within it: a folder and
/// its files are one.
fn file_uses(modules: &BTreeMap<Vec<String>, Module>) -> BTreeMap<String, BTreeSet<String>> {
    let owner = |path: &[String]| {
        (1..=path.len())
            .rev()
            .find_map(|length| modules.get(&path[..length]))
    };
    let are_one = |a: &[String], b: &[String]| a.starts_with(b) || b.starts_with(a);
    let uses = modules.values().map(|module| {
        let used = module.references();
        let used = used
            .iter()
            .filter_map(|path| owner(path))
            .filter(|used| !are_one(&used.path, &module.path))
            .map(|used| used.path.join("/"));
        (module.path.join("/"), used.collect())
    });
    uses.collect()
}

/// Every file that one uses, straight or through others.
fn reached<'a>(file: &'a str, uses: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![file];
    while let Some(used) = next.pop().and_then(|file| uses.get(file)) {
        next.extend(
            used.iter()
                .map(String::as_str)
                .filter(|file| reached.insert(*file)),
        );
    }
    reached
}

/// Groups of files that use each other, straight or through others.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<&str>> {
    let reach: BTreeMap<_, _> = uses
        .keys()
        .map(|file| (file.as_str(), reached(file, uses)))
        .collect();
    let circle = |file: &str| -> Vec<_> {
        let others = reach[file].iter().copied();
        others.filter(|other| reach[other].contains(file)).collect()
    };
    let circles = reach.keys().map(|file| circle(file));
    circles.filter(|files| !files.is_empty()).collect()
}

#[test]
fn no_two_files_use_each_other() {
    let uses = file_uses(&modules());
    assert!(uses.len() > 100, "{}", uses.len());
    let circles = circles(&uses);
    assert!(circles.is_empty(), "files that use each other: {circles:?}");
}

#[test]
fn a_circle_is_found_through_others_and_in_every_form_of_use() {
    let module = |path: &str, code: &str| {
        let path: Vec<_> = path.split('/').map(str::to_owned).collect();
        let code = code.to_owned();
        (path.clone(), Module { path, code })
    };
    let modules = BTreeMap::from([
        module("a", "mod b;\nmod c;\nuse self::b::B;"),
        module("a/b", "use super::{A, c::{self, C as D}, e::E};"),
        module("a/c", "fn f() { crate::d::g() }"),
        module("a/e", "use std::fmt;"),
        module("d", "use crate::a::{b::B};"),
    ]);
    let uses = file_uses(&modules);
    assert_eq!(circles(&uses), [vec!["a/b", "a/c", "d"]].into());
}
