//! Checks of the documentation: tests compare its tables with the code.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

/// Set to anything, it makes a test write its table where it would compare it.
const UPDATE: &str = "UPDATE_DOCS";

/// Holds a table of the documentation, found by its first two titles, to these rows.
///
/// # Panics
/// The table is missing, or its rows are others. If `UPDATE_DOCS` is set, other rows are written
/// instead.
#[track_caller]
pub(crate) fn hold_table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let Documented {
        page,
        before,
        table,
        after,
    } = Documented::find(&titles[..2]);
    let rule = format!("|{}", "---|".repeat(titles.len()));
    let rows = rows.into_iter().map(|cells| line(&cells));
    let coded: Vec<_> = [line(titles), rule].into_iter().chain(rows).collect();
    if env::var_os(UPDATE).is_some() {
        let text = format!("{before}{}\n\n{after}", coded.join("\n"));
        fs::write(page, text).expect("the documentation can be written");
        return;
    }
    let documented: Vec<_> = table.lines().collect();
    let page = page.display();
    assert_eq!(
        documented, coded,
        "{page}: {UPDATE}=1 cargo test writes what the code says"
    );
}

/// Holds the first columns of a table of the documentation to these rows; the others are prose.
///
/// # Panics
/// The table is missing, or its columns are others.
#[track_caller]
pub(crate) fn hold_columns(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let Documented { page, table, .. } = Documented::find(titles);
    let begins: Vec<_> = rows.into_iter().map(|cells| line(&cells)).collect();
    let documented: Vec<_> = table.lines().skip(2).collect();
    let is_alike = documented.len() == begins.len()
        && std::iter::zip(&documented, &begins).all(|(row, begin)| row.starts_with(begin));
    let page = page.display();
    assert!(
        is_alike,
        "{page}: the rows\n{documented:#?}\ndo not begin with\n{begins:#?}"
    );
}

/// Holds the names in a table's first column, which has one or more in each row, to these.
///
/// # Panics
/// The table is missing, or its names are others.
#[track_caller]
pub(crate) fn hold_names<'a>(titles: &[&str], names: impl IntoIterator<Item = &'a str>) {
    let Documented { table, .. } = Documented::find(titles);
    let first_cells = table
        .lines()
        .skip(2)
        .filter_map(|row| row.split('|').nth(1));
    let documented: BTreeSet<_> = first_cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(documented, names.into_iter().collect());
}

/// A table in its page.
struct Documented {
    page: PathBuf,
    before: String,
    table: String,
    after: String,
}

impl Documented {
    fn find(titles: &[&str]) -> Self {
        let begin = line(titles);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let docs = fs::read_dir(root.join("docs")).into_iter().flatten();
        for page in docs.filter_map(|entry| Some(entry.ok()?.path())) {
            let Ok(text) = fs::read_to_string(&page) else {
                continue;
            };
            if let Some(at) = text.find(&begin) {
                let (before, rest) = text.split_at(at);
                let (table, after) = rest.split_once("\n\n").unwrap_or((rest.trim_end(), ""));
                return Self {
                    page,
                    before: before.to_owned(),
                    table: table.to_owned(),
                    after: after.to_owned(),
                };
            }
        }
        panic!("no page of the documentation has a table `{begin}`")
    }
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let cells = cells.iter().map(|cell| match cell.as_ref() {
        "" => " |".to_owned(),
        text => format!(" {text} |"),
    });
    format!("|{}", cells.collect::<String>())
}
