//! The submitter: maps records to context keys, and hands the changes to a lane with their acks.
//!
//! It does not depend on how records arrive. A gRPC stream drives it today.

use std::{collections::HashMap, time::Duration};

use tokio::sync::mpsc;

use crate::{
    delivery::{AckIssuer, LaneHandle, SettledRecord},
    domain::{Mapping, Operation, RecordError},
};

/// What a record costs in memory beside its key while it waits in a lane: its entry in the open
/// batch, its ack, its entries in map and queue, and their spare capacity, added up and rounded up.
const RECORD_COST: usize = 384;

/// Submits the records of one sender to one lane.
#[derive(Debug)]
pub(super) struct RecordSubmitter {
    mapping: Mapping,
    lane: LaneHandle,
    acks: AckIssuer,
    validate_only: bool,
}

/// What became of a submitted record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submitted {
    /// The lane has it. A verdict follows.
    Queued {
        /// What it costs in memory until then.
        bytes: usize,
    },
    /// It is valid, and was to be validated only.
    Validated,
}

impl RecordSubmitter {
    /// A submitter, and the verdicts of its records. They end (`None`) once the submitter and every
    /// record are gone.
    pub(super) fn new(
        lane: LaneHandle,
        mapping: Mapping,
        delivery_timeout: Duration,
        validate_only: bool,
    ) -> (Self, mpsc::UnboundedReceiver<SettledRecord>) {
        let (acks, settled) = AckIssuer::new(delivery_timeout);
        let submitter = Self {
            mapping,
            lane,
            acks,
            validate_only,
        };
        (submitter, settled)
    }

    /// Submits one record. Its delivery time-out starts now.
    ///
    /// # Errors
    /// The identifiers have no context key.
    pub(super) fn submit(
        &self,
        sequence: i64,
        identifiers: &HashMap<String, String>,
        operation: Operation,
    ) -> Result<Submitted, RecordError> {
        let key = self.mapping.context_key(identifiers)?;
        if self.validate_only {
            return Ok(Submitted::Validated);
        }
        let bytes = RECORD_COST + key.as_str().len();
        self.lane.submit(key, operation, self.acks.issue(sequence));
        Ok(Submitted::Queued { bytes })
    }

    /// Makes what was submitted leave without lingering.
    pub(super) fn flush(&self) {
        self.lane.flush();
    }

    /// Gives the records up: no new call starts for them. Calls under way go on.
    pub(super) fn abandon(&self) {
        self.acks.abandon();
        self.lane.sweep();
    }
}
