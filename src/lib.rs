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
//!                                delivery::lanes            which lane?
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
//! Modules use those on floors below their own, and those of their own folder, and no two files use
//! each other. A test reads the `use` lines and holds them to it.
//!
//! | floor | modules |
//! |---|---|
//! | 5 commands | [`cli`] |
//! | 4 assembly, and what faces callers | [`app`], [`config`], [`server`] |
//! | 3 the core: destinations and their delivery | [`registry`], which uses [`delivery`] |
//! | 2 external systems, and what counts; they do not know each other | [`launchdarkly`], [`store`], [`sandbox`], [`metrics`] |
//! | 1 vocabulary, and the ports to the floors above it | [`domain`] |
//! | 0 foundations | [`backoff`], [`clock`], [`pb`], [`secret`], [`shutdown`], [`telemetry`] |
//!
//! Only [`app`] knows every module; only `server::status` makes a `tonic::Status`; only
//! `launchdarkly::transport` knows reqwest; [`pb`] is used by [`server`], [`app`] and [`cli`]
//! alone; [`sandbox`] shares no type with [`launchdarkly`], so that neither can hide the
//! other's mistakes.
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
//! | seal | to take a batch's due changes out, to be delivered together |
//! | segment call | one request to LaunchDarkly: one operation for up to 1,000 members |
//! | batch delivery | the segment calls that deliver one sealed batch, more than one if members are refused |
//! | isolate | to find the members that a call was refused for, by bisection |
//! | systemic refusal | a refusal of the request itself, as no call of the lane ever succeeded |
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
//! | fence | of the streams with one `stream_id`, only the newest may write |
//! | drain | to ask streams to move, and to settle what they have sent |
//! | sandbox | a stand-in for LaunchDarkly, for trying and testing |

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
pub mod metrics;
pub mod pb;
mod registry;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
