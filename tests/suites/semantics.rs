//! The examples in docs/semantics.md are run as they stand there.

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
