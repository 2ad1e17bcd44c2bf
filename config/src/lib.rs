//! What the administrator wrote, read and checked: files -> fragments -> merged fragment -> validated settings.
//!
//! A [`Fragment`] is one file as it stands, every key optional. [`merge()`] lays fragments over each other. [`resolve`]
//! fills in the built-in defaults and gives a policy, or says all that is wrong. These are pure. [`load()`] alone reads
//! files: either all of them are valid, or there is a list of errors and nothing else.

mod cat;
mod check;
mod error;
mod fragment;
mod load;
mod main_file;
mod merge;
mod nearest;
mod reader;
mod settings;
mod vocabulary;
mod write;

pub use error::{ConfigError, Hint, Located, Problem};
pub use fragment::{Accounts, Fragment, KillFragment};
pub use load::{Loaded, LoadedMount, Roots, cat, load};
pub use main_file::{HistoryFragment, HistorySettings, LogLevel, MainFragment, MainSettings};
pub use merge::{merge, merge_main};
pub use settings::{check, resolve};
pub use vocabulary::keys;
