//! `org.freedesktop.LogControl1`: what `systemctl service-log-level memcharged` reads and sets. The bus lets only root
//! set anything.

use memcharge_config::LogLevel;
use zbus::fdo::{Error, Result};

use crate::logging;

/// Where the object is.
pub(crate) const LOG_CONTROL_PATH: &str = "/org/freedesktop/LogControl1";

/// As `journalctl --identifier=` takes it.
const IDENTIFIER: &str = "memcharged";

/// The words of syslog, and what is logged at each.
const WORDS: [(&str, LogLevel); 8] = [
    ("emerg", LogLevel::Error),
    ("alert", LogLevel::Error),
    ("crit", LogLevel::Error),
    ("err", LogLevel::Error),
    ("warning", LogLevel::Warn),
    ("notice", LogLevel::Info),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

/// The object.
#[derive(Debug)]
pub(crate) struct LogControl;

/// The word of syslog for a level. What is more than `debug` has none.
fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "err",
        LogLevel::Warn => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug | LogLevel::Trace => "debug",
    }
}

fn parse(text: &str) -> Result<LogLevel> {
    let found = WORDS.iter().find(|(word, _)| *word == text).map(|(_, level)| *level);
    found.ok_or_else(|| {
        let words = WORDS.map(|(word, _)| word).join(", ");
        Error::InvalidArgs(format!("`{}` is no log level; give one of {words}", text.escape_debug()))
    })
}

#[zbus::interface(name = "org.freedesktop.LogControl1", introspection_docs = false)]
impl LogControl {
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> &'static str {
        word(logging::level())
    }

    #[zbus(property)]
    fn set_log_level(&mut self, text: &str) -> Result<()> {
        let level = parse(text)?;
        logging::set_level(level);
        tracing::info!("the log level is {level} until it is set again or memcharged ends");
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn log_target(&self) -> &'static str {
        if logging::is_journal() { "journal" } else { "console" }
    }

    #[zbus(property)]
    fn set_log_target(&mut self, text: &str) -> Result<()> {
        if text == self.log_target() || text == "auto" {
            return Ok(());
        }
        let shown = text.escape_debug();
        Err(Error::InvalidArgs(format!(
            "memcharged logs where it was started to, {}, and cannot log to `{shown}`",
            self.log_target()
        )))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> &'static str {
        IDENTIFIER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_syslog_is_taken() {
        for (text, level) in WORDS {
            assert_eq!(parse(text).unwrap(), level);
        }
        for text in ["", "Info", "warn", "7", "trace"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("warning, notice, info, debug"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_is_accepted_back() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug] {
            assert_eq!(parse(word(level)).unwrap(), level);
        }
        assert_eq!(word(LogLevel::Trace), "debug");
    }
}
