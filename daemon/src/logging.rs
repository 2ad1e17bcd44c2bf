//! Where the log goes: to the journal when the service manager connected us to it, otherwise to stderr.

use std::{
    os::unix::fs::MetadataExt,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use memcharge_config::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, filter::Targets, layer::SubscriberExt, reload};

/// What libraries say below this level is of no use to an administrator.
const LIBRARIES: LevelFilter = LevelFilter::WARN;

/// The level in force, by its place in [`LogLevel::ALL`].
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// Where the level is changed.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging at this level. Later calls change nothing.
pub(crate) fn start(level: LogLevel) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let subscriber = Registry::default().with(output().with_filter(filter));
    // A second subscriber cannot be set; the first one stays, and that is as good.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        drop(FILTER.set(handle));
        note(level);
    }
}

/// The level in force.
pub(crate) fn level() -> LogLevel {
    let at = usize::from(LEVEL.load(Ordering::Relaxed));
    LogLevel::ALL.get(at).copied().unwrap_or(LogLevel::Error)
}

fn note(level: LogLevel) {
    let at = LogLevel::ALL.iter().position(|known| *known == level);
    LEVEL.store(at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0), Ordering::Relaxed);
}

/// Logs at this level from now on.
pub(crate) fn set_level(level: LogLevel) {
    let Some(handle) = FILTER.get() else { return };
    match handle.reload(filter(level)) {
        Ok(()) => note(level),
        Err(error) => {
            tracing::warn!("the log level stays as it is: {error}; restart memcharged to change it");
        }
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
