//! Where the log goes: to the journal when the service manager connected us to it, otherwise to stderr.

use std::{os::unix::fs::MetadataExt, sync::OnceLock};

use memcharge_config::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, filter::Targets, layer::SubscriberExt, reload};

/// What libraries say below this level is of no use to an administrator.
const LIBRARIES: LevelFilter = LevelFilter::WARN;

/// Where the level is changed.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging at this level. Later calls change nothing.
pub(crate) fn start(level: LogLevel) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let subscriber = Registry::default().with(output().with_filter(filter));
    // A second subscriber cannot be set; the first one stays, and that is as good.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        drop(FILTER.set(handle));
    }
}

/// Logs at this level from now on.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(filter(level))
    {
        tracing::warn!("the log level stays as it is: {error}; restart memcharged to change it");
    }
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_target("memcharged", level).with_default(LIBRARIES.min(level))
}

fn output() -> Box<dyn Layer<Registry> + Send + Sync> {
    if is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        return journal.with_field_prefix(Some("MEMCHARGE".to_owned())).boxed();
    }
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).boxed()
}

/// Whether stderr is the stream that `$JOURNAL_STREAM` names (`DEVICE:INODE`).
pub(crate) fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    stream.zip(stderr).is_some_and(|(stream, stderr)| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}
