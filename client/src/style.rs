//! Colours. Escape codes have no width: text is aligned and shortened first, and painted then.

use anstyle::{AnsiColor, Style};

/// How a mount's state is shown: green where all is well, red where it has ended badly, yellow where somebody should
/// look. What passes by itself, or is not known, stays as it is.
pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "active" => AnsiColor::Green.on_default(),
        "failed" => AnsiColor::Red.on_default().bold(),
        "waiting" | "throttled" | "frozen" | "degraded" => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

/// The text between the codes of a style; as it is where there is nothing to show.
pub(crate) fn paint(text: &str, style: Style, colour: bool) -> String {
    if colour && !style.is_plain() && !text.is_empty() {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_colour() {
        for (state, painted) in [
            ("active", "\x1b[32mactive\x1b[0m"),
            ("failed", "\x1b[1m\x1b[31mfailed\x1b[0m"),
            ("waiting", "\x1b[33mwaiting\x1b[0m"),
            ("throttled", "\x1b[33mthrottled\x1b[0m"),
            ("frozen", "\x1b[33mfrozen\x1b[0m"),
            ("degraded", "\x1b[33mdegraded\x1b[0m"),
            ("activating", "activating"),
            ("deactivating", "deactivating"),
            ("-", "-"),
            ("", ""),
        ] {
            assert_eq!(paint(state, state_style(state), true), painted);
            assert_eq!(paint(state, state_style(state), false), state);
        }
    }
}
