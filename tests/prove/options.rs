//! What a run is asked for on its command line.

/// Flags of libtest that take a value, which is not a filter.
const WITH_VALUE: [&str; 6] = [
    "--test-threads",
    "--format",
    "--color",
    "--skip",
    "--logfile",
    "-Z",
];

/// How large a scenario is to be, and from which seed its faults are drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) large: bool,
    pub(crate) seed: u64,
}

impl Size {
    /// One of two, by the size of the run.
    pub(crate) fn pick<T>(self, small: T, large: T) -> T {
        if self.large { large } else { small }
    }
}

/// The whole command line. Other flags of libtest are passed over, so that `cargo test` may have
/// some for all targets.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) size: Size,
    pub(crate) list: bool,
    /// Only what libtest would ignore otherwise is wanted, and there is nothing of that.
    ignored: bool,
    filter: Option<String>,
}

impl Options {
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            size: Size {
                large: false,
                seed: 1,
            },
            list: false,
            ignored: false,
            filter: None,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--large" => options.size.large = true,
                "--list" => options.list = true,
                "--ignored" => options.ignored = true,
                "--seed" => {
                    let seed = arguments.next().and_then(|seed| seed.parse().ok());
                    options.size.seed = seed.expect("--seed takes a number");
                }
                flag if WITH_VALUE.contains(&flag) => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                filter => options.filter = options.filter.or(Some(filter.to_owned())),
            }
        }
        options
    }

    /// A promise's name, such as `R1`, picks that one alone; other filters pick by any part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        let is_promise = filter.strip_prefix('R').is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let picked = if is_promise {
            name.split(' ').next() == Some(filter)
        } else {
            name.contains(filter)
        };
        picked && !self.ignored
    }
}
