//! A gRPC service that keeps LaunchDarkly segments in step with a customer data platform.
//!
//! # The route of a record
//!
//! ```text
//!  client ── IdentifierBatch ──▶ server::stream::session   room in the stream's window? (if not, the body is not read)
//!                                server::edge::inbound_body the next message's bytes
//!                                server::edge::memory       room in the process-wide budget?
//!                                server::stream::ledger     numbered
//!                                domain::mapping            identifiers → context key
//!                                server::stream::submitter  handed to the stream's lane, with an ack
//!                                     │ change + Ack
//!                                delivery::lanes            the stream's lane: chosen when it opened
//!                                delivery::batch            newest change of the key wins
//!                                delivery::lane             due? not in flight?
//!                                launchdarkly::throttle     a slot: concurrency limit, rate window, circuit breaker, retry budget
//!                                delivery::batch            sealed: due changes leave together
//!                                delivery::batch_delivery   one segment call, or more to isolate refused members
//!                                     │ SegmentCall
//!                                launchdarkly::client       hold check → authorization
//!                                launchdarkly::stack        time-out → transport → what the answer means
//!                                     │ CallOutcome
//!                                delivery::ack              exactly one Verdict
//!                                server::stream::ledger     RecordOutcome, runs of equal results
//!  client ◀──────── Ack ──────── server::stream::session    committed_sequence
//! ```
//!
//! # Floors
//!
//! A module uses modules of lower floors and of its own folder. These uses within a floor are
//! allowed too: [`registry`] uses [`delivery`], [`config`] uses [`server`], [`app`] uses both of these,
//! and [`shutdown`] uses [`reload`]. No two files use each other. A test reads the `use` lines and holds them to it.
//!
//! | floor | modules |
//! |---|---|
//! | 5 commands | [`cli`] |
//! | 4 assembly, and what faces callers | [`app`], [`config`], [`server`] |
//! | 3 the core: destinations and their delivery | [`registry`], which uses [`delivery`] |
//! | 2 external systems, and what counts; they do not know each other | [`launchdarkly`], [`store`], [`sandbox`], [`metrics`] |
//! | 1 vocabulary, and the ports to the floors above it | [`domain`] |
//! | 0 foundations | [`backoff`], [`clock`], [`loopback`], [`pb`], [`reload`], [`secret`], [`shutdown`], [`telemetry`] |
//!
//! Only [`app`] knows the server, the registry, the store and the client of LaunchDarkly together.
//! Only `server::status` chooses code, text and details of the errors that callers get; tonic answers
//! messages that it cannot decode (batches are decoded by [`pb::batch`]), and [`cli`] describes its own failure to connect as a status. In
//! the service only `launchdarkly::transport` knows reqwest; `cli::demo` uses it to play an
//! application. [`pb`] is used by [`server`], [`app`] and [`cli`] alone. [`sandbox`] shares no type
//! with [`launchdarkly`], so that neither can hide the other's mistakes.
//!
//! # Glossary
//!
//! Terms of the field mean here what they mean elsewhere: backpressure, circuit breaker, retry
//! budget, AIMD concurrency limit, idempotency key, lease, fence. These are the project's own:
//!
//! | word | meaning |
//! |---|---|
//! | record | what a client sends: identifiers and an operation, numbered by its sequence |
//! | change | what a record asks for, mapped: a context key, in or out of a segment |
//! | destination | a stored connection to one LaunchDarkly environment |
//! | live destination | the current state of a destination in use, which its streams and lanes watch |
//! | registry | the one owner of destinations: stores and publishes every change |
//! | caller | the caller of an RPC; turns the names in it into authorized ones, which open what their permission is for |
//! | activation | a journey's use of a destination: its segment, perhaps its own mapping |
//! | segment | the LaunchDarkly segment that records go to, known by its stable ID |
//! | context key | the value LaunchDarkly knows a member by |
//! | lane | the one task that delivers to one segment, of one context kind, of one destination |
//! | batch | the changes a lane has collected and not yet sent; also a client's message of records |
//! | seal | to take the changes of one call out of a batch. Once one change is due, the others of its group leave with it, up to the limit of a call; a group is what may share a call: additions, removals, or both |
//! | segment call | one request to LaunchDarkly that changes up to 1,000 members of a segment: all added, all removed, or some of each if the integration's requests can say so |
//! | recheck | to ask LaunchDarkly again about a destination whose credentials were refused |
//! | batch delivery | the segment calls that deliver one sealed batch, more than one if members are refused |
//! | isolate | to find the members that a call was refused for, by bisection |
//! | systemic refusal | a refusal of the request itself, as no call of the lane ever succeeded |
//! | admit | to let a waiting call start; of a ledger: to number a batch; of a stream: to let it open |
//! | ack | inside: a record's claim to one verdict, which moves with it; on the wire: results |
//! | verdict | what became of a record: delivered, rejected, timed out, or deferred to its sender |
//! | settle | to give an ack its verdict |
//! | outcome | of a segment call: applied, refused, to be retried; of a record: its result |
//! | throttle | holds the calls of one LaunchDarkly account to its pace |
//! | pace | when an account may be called, and how often: concurrency, rate window, breaker, budget |
//! | slot | permission for one call, from the throttle; given back when dropped; a concurrency limit is a number of slots |
//! | hold | a moment before which no call starts: of an account, an environment or a lane |
//! | server hold | the hold that LaunchDarkly asked for, as by `Retry-After`; a breaker's hold is none |
//! | query | a call that asks LaunchDarkly something instead of changing a segment |
//! | probe | a call that tests something: of an open breaker, whether LaunchDarkly works again; of a bisection, whether a part of a batch is refused |
//! | participant | in a fair share of slots: an environment of the account, or a segment of the environment |
//! | timekeeper | of the callers that wait for a slot of one account, the one that sleeps until the next may start |
//! | generation | the connections to one host that are replaced together |
//! | streak | how long the same failure has lasted without a success |
//! | sweep | to drop what is no longer needed: changes of streams that have ended, idle entries of a map |
//! | run | consecutive records with the same result; of a breaker, failures in a row |
//! | proven | of a rejected record: LaunchDarkly has accepted others for its segment, so the record itself is at fault |
//! | vendor | LaunchDarkly, in code that does not depend on which vendor it is: the ports in [`domain`], delivery, tests |
//! | mistake | of a credential: the likeliest cause of its wrong format, such as an SDK key in place of a token |
//! | fence | of the streams with one `stream_id`, only the newest may write |
//! | drain | to ask streams to move, and to settle what they have sent |
//! | sandbox | a stand-in for LaunchDarkly, for trying and testing |
//! | fault | of the sandbox: one way for a call to go wrong; called `mishaps` in its JSON |

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the documentation is for those who maintain the service: it is built with private items"
)]

pub mod app;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
#[cfg(test)]
mod docs;
pub mod domain;
pub mod launchdarkly;
mod loopback;
pub mod metrics;
pub mod pb;
mod registry;
pub mod reload;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
