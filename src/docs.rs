//! Tables of the documentation, which tests hold to the code.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Set to anything, it makes a test write its table where it would compare it.
const UPDATE: &str = "UPDATE_DOCS";

/// Holds a table of the documentation, found by its first two titles, to these rows.
///
/// # Panics
/// The table is missing, or another one, unless `UPDATE_DOCS` is set: then it is written.
#[track_caller]
pub(crate) fn hold_table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let rule = format!("|{}", "---|".repeat(titles.len()));
    let begin = line(&titles[..2]);
    let titles = line(titles);
    let rows = rows.into_iter().map(|cells| line(&cells));
    let table: Vec<_> = [titles, rule].into_iter().chain(rows).collect();
    let (file, text) = page_with(&begin);
    let at = text.find(&begin).expect("the page was chosen by it");
    let (before, rest) = text.split_at(at);
    let (documented, after) = rest.split_once("\n\n").unwrap_or((rest, ""));
    if env::var_os(UPDATE).is_some() {
        let text = format!("{before}{}\n\n{after}", table.join("\n"));
        fs::write(file, text).expect("the documentation can be written");
        return;
    }
    let documented: Vec<_> = documented.lines().collect();
    assert_eq!(
        documented,
        table,
        "{} is not what the code says: {UPDATE}=1 cargo test writes it",
        file.display()
    );
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let cells = cells.iter().map(|cell| match cell.as_ref() {
        "" => " |".to_owned(),
        text => format!(" {text} |"),
    });
    format!("|{}", cells.collect::<String>())
}

fn page_with(begin: &str) -> (PathBuf, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).into_iter().flatten();
    let mut pages = docs.filter_map(|entry| Some(entry.ok()?.path()));
    pages
        .find_map(|page| {
            let text = fs::read_to_string(&page).ok()?;
            text.contains(begin).then_some((page, text))
        })
        .unwrap_or_else(|| panic!("no page of the documentation has a table `{begin}`"))
}
