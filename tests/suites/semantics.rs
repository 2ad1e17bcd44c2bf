//! The examples in docs/semantics.md are run as they stand there, and its table against the kernel series names tests that
//! exist.

use memcharge_tests::{host::PLAIN, service::run, vm_tests};

const TEXT: &str = include_str!("../../docs/semantics.md");

/// One command and what it prints.
struct Example {
    command: String,
    prints: String,
}

/// The commands of all `console` blocks, in order.
fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (true, "```") => inside = false,
            (true, line) => match (line.strip_prefix("# "), examples.last_mut()) {
                (Some(command), _) => {
                    examples.push(Example { command: command.to_owned(), prints: String::new() })
                }
                (None, Some(example)) => example.prints += &format!("{line}\n"),
                (None, None) => panic!("output without a command: {line}"),
            },
            (false, _) => {}
        }
    }
    examples
}

#[test]
fn examples_are_found() {
    let found = examples("x\n```console\n# a\nb\nc\n# d\n```\n# no command\n");
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].command.as_str(), found[0].prints.as_str()), ("a", "b\nc\n"));
    assert!(examples(TEXT).len() > 20);
}

/// What is measured instead of tested.
const MEASURED: &str = "xtask bench";

/// The tests that a row of the table against the series names, in its last cell.
fn named_tests(row: &str) -> Vec<&str> {
    let last = row.trim_end_matches([' ', '|']).rsplit_once('|').map_or("", |(_, last)| last);
    last.split('`').skip(1).step_by(2).collect()
}

/// Whether `suite::name` is a test of this crate.
fn exists(test: &str) -> bool {
    let Some((suite, name)) = test.split_once("::") else { return false };
    let path = format!("{}/suites/{suite}.rs", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(&format!(" fn {name}() {{")))
}

#[test]
fn each_row_against_the_series_names_its_tests() {
    let (_, section) = TEXT.split_once("\n## Against the kernel series\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert_eq!(rows.len(), 18, "the rows of the measured table, and the selftest");
    for row in rows {
        assert_eq!(row.matches(" | ").count(), 3, "four cells: {row}");
        let tests = named_tests(row);
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            assert!(test == MEASURED || exists(test), "there is no test {test}: {row}");
        }
    }
}

vm_tests! { PLAIN;
    /// Every example prints what the document says.
    fn the_examples_are_true() {
        let _ = run(&["systemctl", "start", "memcharged"]).ok();
        for example in examples(TEXT) {
            let said = run(&["bash", "-c", &format!("exec 2>&1; {}", example.command)]);
            println!("# {}\n{}", example.command, said.out);
            assert_eq!(said.out, example.prints, "# {}", example.command);
        }
    }
}
