//! Proxies, generated from `xml/` by `cargo xtask codegen`; not to be edited.
#![expect(missing_docs, reason = "the proxy macro adds types and methods without docs")]

pub(crate) mod manager;
pub(crate) mod mount;
pub(crate) mod target;
