# The front door. `just` lists what there is; .ci/run and cargo do the work and do not need just.

_default:
    @just --list --unsorted

# What must hold before a change lands
check:
    .ci/run

# The main job, end to end, in one process
demo *arguments:
    cargo run --release --locked -- demo {{ arguments }}

# A server with a sandbox LaunchDarkly beside it, for trying things by hand
serve *arguments: _keys
    cargo run --release --locked -- serve --sandbox --keys-file target/dev.keys --store sqlite:target/dev.db {{ arguments }}

_keys:
    [ -e target/dev.keys ] || (umask 077 && cargo run --release --locked -- keygen > target/dev.keys)

# Tests; arguments go to cargo
test *arguments:
    cargo test --locked {{ arguments }}

# The promises of delivery in full, as a table of figures; a name such as R7 picks one
prove *arguments:
    cargo test --release --locked --test prove -- --large {{ arguments }}

# What a record costs, against a bare echo server; arguments such as --quick go to the bench
bench *arguments:
    cargo bench --locked --bench throughput -- {{ arguments }}

# Where the CPU time of one row goes; needs perf and Python
profile row="100-1-1" *arguments:
    cargo bench --locked --profile profiling --bench throughput -- --rows {{ row }} --pairs 1 --seconds 5 --perf target/perf.data {{ arguments }}
    perf script -i target/perf.data -F comm,ip,sym --no-inline | python3 benches/attribute.py

# So many seeds of the simulated network: R2 alone
simulate seeds="1000":
    SIM_SEEDS={{ seeds }} cargo test --release --locked --test prove -- R2

# One seed of it again, with its history
replay seed:
    SIM_SEED={{ seed }} cargo test --release --locked --test it sim::replays -- --nocapture

# Format everything
fmt:
    cargo fmt

# Lints, as strict as the check
lint:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    cargo clippy --no-default-features --locked -- -D warnings

# The crate's documentation, in a browser
doc:
    cargo doc --no-deps --document-private-items --locked --open

# Put true outputs into the docs' walk-throughs; needs the tools that `just check` fetches
walkthrough:
    cargo build --release --locked
    target/ci/venv/bin/python .ci/walkthrough.py target/release/launchdarkly-connector --write

# The contract's descriptor set, for generating clients
descriptor file="contract.binpb":
    cargo run --locked --quiet --example descriptor_set > {{ file }}

# The container image
image tag="launchdarkly-connector":
    docker build -t {{ tag }} .
