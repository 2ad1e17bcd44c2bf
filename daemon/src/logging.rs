//! Where the log goes: to the journal when the service manager connected us to it, otherwise to stderr.

use std::os::unix::fs::MetadataExt;

use memcharge_config::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, filter::Targets, layer::SubscriberExt};

/// What libraries say below this level is of no use to an administrator.
const LIBRARIES: LevelFilter = LevelFilter::WARN;

/// Starts logging at this level. Called once.
pub(crate) fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let filter = Targets::new().with_target("memcharged", level).with_default(LIBRARIES.min(level));
    let subscriber = Registry::default().with(output().with_filter(filter));
    // A second subscriber cannot be set; the first one stays, and that is as good.
    drop(tracing::subscriber::set_global_default(subscriber));
}

fn output() -> Box<dyn Layer<Registry> + Send + Sync> {
    if stderr_is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        return journal.with_field_prefix(Some("MEMCHARGE".to_owned())).boxed();
    }
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).boxed()
}

/// Whether stderr is the stream that `$JOURNAL_STREAM` names (`DEVICE:INODE`).
fn stderr_is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    stream.zip(stderr).is_some_and(|(stream, stderr)| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}
