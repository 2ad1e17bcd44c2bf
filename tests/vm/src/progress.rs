//! Lines for a person who waits: a sign of life at least every ten seconds.

use std::time::{Duration, Instant};

/// Where lines about the progress go.
pub type Say<'a> = &'a dyn Fn(&str);

const EVERY: Duration = Duration::from_secs(10);

/// One step that may take long.
pub(crate) struct Progress<'a> {
    what: String,
    say: Say<'a>,
    start: Instant,
    next: Duration,
}

impl<'a> Progress<'a> {
    /// Says at once what is done, and then every ten seconds that it still is.
    pub(crate) fn new(what: impl Into<String>, say: Say<'a>) -> Self {
        let what = what.into();
        say(&what);
        Self { what, say, start: Instant::now(), next: EVERY }
    }

    /// Says nothing until `first` is over.
    pub(crate) fn quiet(what: impl Into<String>, first: Duration, say: Say<'a>) -> Self {
        Self { what: what.into(), say, start: Instant::now(), next: first }
    }

    /// To be called a few times a second.
    pub(crate) fn tick(&mut self) {
        let elapsed = self.start.elapsed();
        if elapsed >= self.next {
            (self.say)(&format!("still {}, {} s", self.what, elapsed.as_secs()));
            self.next = elapsed + EVERY;
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
