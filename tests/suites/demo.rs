//! The story that `cargo xtask demo` tells: its figures are read from the kernel.

use memcharge_tests::{host::PLAIN, service::run, vm_tests};

/// The numbers in the line that begins with `label` in the table with this title, in MiB.
fn row(text: &str, title: &str, label: &str) -> Vec<f64> {
    let table = &text[text.find(title).unwrap_or_else(|| panic!("no {title} in {text}"))..];
    let line = table.lines().find(|line| line.trim_start().starts_with(label)).unwrap();
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

vm_tests! { PLAIN;
    /// Other sizes, other figures.
    fn the_story_s_figures_follow_its_sizes() {
        for (limit, write, innocent) in [("64", 24.0, "16"), ("48", 12.0, "8")] {
            let text = run(&["/mnt/files/memcharge-demo", "--limit", limit, "--write", &write.to_string(), "--innocent", innocent]);
            let text = text.ok().out;
            println!("{text}");
            let near = |numbers: &[f64], change: f64| (numbers.last().unwrap() - change).abs() < 1.5;
            assert!(near(&row(&text, "Plain tmpfs", "writer"), write), "the writer pays");
            assert!(near(&row(&text, "Plain tmpfs", "target"), 0.0), "the target does not");
            assert!(near(&row(&text, "memcharge", "writer"), 0.0), "the writer does not pay");
            assert!(near(&row(&text, "memcharge", "target"), write), "the target pays");
            assert!(text.contains("was killed by the kernel"), "the innocent dies on plain tmpfs");
            assert!(text.contains("No space left on device"), "ENOSPC with memcharge");
            assert!(text.contains("is alive"), "nobody dies with memcharge");
        }
    }
}
