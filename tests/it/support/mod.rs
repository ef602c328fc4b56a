//! What several tests need.

pub(crate) mod between;
pub(crate) mod binary;
pub(crate) mod certificates;
pub(crate) mod executor;
pub(crate) mod history;
pub(crate) mod proxy;
pub(crate) mod scrape;
