//! A gRPC service that keeps LaunchDarkly segments in step with a customer data platform.
//!
//! # The route of a record
//!
//! ```text
//!  client ── IdentifierBatch ──▶ server::intake    room in the process-wide budget?
//!                                server::session   room in the stream's window?
//!                                server::protocol  numbered
//!                                domain::mapping   identifiers → context key
//!                                     │ Change + Ack
//!                                delivery::lanes   which lane?
//!                                delivery::batch   newest change of the key wins
//!                                delivery::lane    due? not in flight? the vendor ready?
//!                                delivery::call    one action, isolating refused members
//!                                     │ SegmentClient
//!                                launchdarkly      throttle → time-out → authorize → transport
//!                                     │ Outcome
//!                                delivery::ack     exactly one verdict
//!  client ◀──────── Ack ──────── server::protocol  runs of results, committed_sequence
//! ```
//!
//! # The house
//!
//! Modules use those on floors below their own, and those of their own folder. A test reads the
//! `use` lines and holds them to it.
//!
//! | floor | modules |
//! |---|---|
//! | 5 commands | [`cli`] |
//! | 4 the house is assembled, the world comes in | [`app`], [`config`], [`server`] |
//! | 3 the heart | [`delivery`] |
//! | 2 outside worlds, which do not know each other | [`launchdarkly`], [`store`], [`sandbox`] |
//! | 1 words | [`domain`] |
//! | 0 ground | [`backoff`], [`clock`], [`metrics`], [`pb`], [`secret`], [`shutdown`], [`telemetry`] |
//!
//! Only [`app`] knows everyone; only `server::status` makes a `tonic::Status`; only
//! `launchdarkly::transport` knows reqwest; [`pb`] is seen by [`server`], [`app`] and [`cli`]
//! alone; [`sandbox`] shares no type with [`launchdarkly`], so that neither can hide the
//! other's mistakes.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | record | what a client sends: identifiers and an operation, numbered by its sequence |
//! | change | what a record asks for, mapped: a context key, in or out of a segment |
//! | destination | a stored connection to one LaunchDarkly environment |
//! | activation | a journey's use of a destination: its segment, perhaps its own mapping |
//! | segment | the LaunchDarkly segment that records go to, known by its stable ID |
//! | context key | the value LaunchDarkly knows a member by |
//! | lane | the one task that delivers to one segment of one destination |
//! | batch | the changes a lane has collected and not yet sent; also a client's message of records |
//! | seal | to take a batch's due changes out, as the members of one call |
//! | call | one request to LaunchDarkly: one operation for up to 1,000 members |
//! | isolate | to find the members a refused call was refused for, by halving it |
//! | ack | a record's claim to one verdict, which moves with it |
//! | verdict | what became of a record: delivered, rejected, timed out, or deferred to its sender |
//! | settle | to give an ack its verdict |
//! | target | what is known right now about a destination in use |
//! | throttle | what holds calls of one LaunchDarkly account to a pace |
//! | slot | a place among the calls an account may have under way |
//! | pace | what is known of when an account may be called, and how often |
//! | limit | how many calls of an account may be under way, found by trying |
//! | hold | a moment before when no call of an account starts |
//! | allowance | the calls that remain to an account until its next window |
//! | breaker | what stops an account's calls, but for probes, after failures in a row |
//! | budget | the share of attempts that may repeat others |
//! | fence | of the streams with one `stream_id`, only the newest may write |
//! | drain | to ask streams to move, and settle what they have sent |
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
pub mod domain;
pub mod launchdarkly;
pub mod metrics;
pub mod pb;
pub mod sandbox;
pub mod secret;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
