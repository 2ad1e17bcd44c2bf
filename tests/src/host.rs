//! The host's side of a test in a VM.

use std::{env, path::PathBuf, time::Duration};

use memcharge_vm::{FileIn, Guest, Image, Job, Kernel, Layer, Suite, VmError};

/// Set in the VM.
const IN_VM: &str = "MEMCHARGE_IN_VM";

/// Which of its phases a test in a VM is in, if it has several.
const PHASE: &str = "MEMCHARGE_PHASE";

/// The package under test. As one of [`Needs::programs`] it goes along as a file.
pub const DEB: &str = "MEMCHARGE_DEB";

/// Set by CI: a test that cannot have its VM fails instead of being skipped.
const REQUIRE_VM: &str = "MEMCHARGE_REQUIRE_VM";

/// What a test's VM is like.
#[derive(Debug, Clone)]
pub struct Needs {
    /// Its userland.
    pub suite: Suite,
    /// Its kernel.
    pub kernel: Kernel,
    /// Debian packages beside the base set.
    pub packages: &'static [&'static str],
    /// Programs of the host that the test runs, each named by an environment variable that holds its path.
    pub programs: &'static [&'static str],
    /// Whether the package is not installed yet.
    pub bare: bool,
    /// How long the test may take.
    pub timeout: Duration,
    /// Whether it measures time: no other VM runs beside it.
    pub alone: bool,
}

/// Debian 13, Linux 6.12, nothing else.
pub const PLAIN: Needs = Needs {
    suite: Suite::Trixie,
    kernel: Kernel::V6_12,
    packages: &[],
    programs: &[],
    bare: false,
    timeout: Duration::from_secs(600),
    alone: false,
};

/// The same for what measures time.
pub const TIMED: Needs = Needs { alone: true, ..PLAIN };

/// With what decides who may do what.
pub const SECURITY: Needs = Needs { packages: &["apparmor", "polkitd"], ..PLAIN };

/// Debian 12, Linux 6.12.
pub const BOOKWORM: Needs = Needs { suite: Suite::Bookworm, ..PLAIN };

/// Debian 12 with its own kernel, which is too old for mounts.
pub const OLD_KERNEL: Needs = Needs { suite: Suite::Bookworm, kernel: Kernel::V6_1, ..PLAIN };

/// Runs the test `name` of this very program in a VM, and in the VM its phases: each but the first after a shutdown and a
/// boot.
///
/// `programs`: this crate's own programs that go along, by name and path.
pub fn in_vm(needs: &Needs, name: &str, programs: &[(&str, &str)], phases: &[fn()]) {
    if env::var_os(IN_VM).is_some() {
        let number = env::var(PHASE).ok().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
        return phases[number]();
    }
    if let Err(e) = run(needs, name, programs, phases.len()) {
        match e {
            Failure::NoVm(reason) if env::var_os(REQUIRE_VM).is_none() => {
                eprintln!("SKIPPED {name}: {reason}");
            }
            Failure::NoVm(reason) | Failure::Failed(reason) => {
                // A test fails by a panic.
                #[allow(clippy::panic)]
                {
                    panic!("{name}: {reason}")
                }
            }
        }
    }
}

/// How the machine of the phase before was shut down.
#[derive(Debug)]
pub struct Shutdown {
    /// From the order to the end of the machine.
    pub took: Duration,
    /// What the console showed, the whole time or the last of it.
    pub console: String,
}

impl Shutdown {
    /// The one before this boot.
    ///
    /// # Panics
    /// In the first phase, which had none before it.
    #[allow(clippy::panic)]
    pub fn before_this_boot() -> Self {
        let told = |name| env::var(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let took = told("MEMCHARGE_SHUTDOWN_MS").parse().unwrap_or_else(|e| panic!("no time: {e}"));
        Self { took: Duration::from_millis(took), console: told("MEMCHARGE_SHUTDOWN_CONSOLE") }
    }
}

enum Failure {
    NoVm(String),
    Failed(String),
}

impl From<VmError> for Failure {
    fn from(e: VmError) -> Self {
        match e {
            VmError::Unavailable { .. } => Self::NoVm(e.to_string()),
            e => Self::Failed(e.to_string()),
        }
    }
}

fn run(needs: &Needs, name: &str, programs: &[(&str, &str)], phases: usize) -> Result<(), Failure> {
    let deb =
        env::var_os(DEB).ok_or_else(|| Failure::NoVm(format!("{DEB} is not set; run `cargo xtask test`")))?;
    let own = env::current_exe().map_err(|e| Failure::Failed(e.to_string()))?;
    let mut files = vec![FileIn { host: own, name: "test".to_owned() }];
    files.extend(
        programs.iter().map(|(name, path)| FileIn { host: PathBuf::from(path), name: (*name).to_owned() }),
    );
    for variable in needs.programs {
        let host = env::var_os(variable)
            .ok_or_else(|| Failure::NoVm(format!("{variable} is not set; run `cargo xtask test`")))?;
        files.push(FileIn { host: host.into(), name: (*variable).to_owned() });
    }
    let image = Image {
        suite: needs.suite,
        kernel: needs.kernel,
        packages: needs.packages.iter().map(ToString::to_string).collect(),
    };
    let layer = (!needs.bare).then(|| Layer { deb: deb.into() });
    let guest = Guest { image, layer, ..Guest::default() };
    let command =
        format!("{IN_VM}=1 exec ./test --exact {name} --nocapture --include-ignored --test-threads 1");
    let job = Job {
        then: vec![command.clone(); phases.saturating_sub(1)],
        files,
        timeout: needs.timeout,
        alone: needs.alone,
        on_failure: Some(
            "echo; echo == journal of memcharged and the stores; \
             journalctl -b --no-pager -o short-monotonic -u memcharged -u 'memcharge-store-*' -n 200; \
             echo == kernel log; dmesg | tail -n 20; \
             if [ -n \"$MEMCHARGE_SHUTDOWN_CONSOLE\" ]; then \
               echo == journal of the shutdown; journalctl -b -1 --no-pager -o short-monotonic -n 200; \
               echo == console of the shutdown; echo \"$MEMCHARGE_SHUTDOWN_CONSOLE\"; \
             fi"
            .to_owned(),
        ),
        ..Job::new(guest, command)
    };
    let mut output = Vec::new();
    let outcome = memcharge_vm::run(&job, &mut output, &|line| eprintln!("{line}"))?;
    let output = String::from_utf8_lossy(&output);
    println!("{output}");
    if outcome.timed_out {
        return Err(Failure::Failed(format!("it took longer than {} s in the VM", needs.timeout.as_secs())));
    }
    // The status alone would also be 0 if the name matched no test.
    if outcome.status != 0 || output.matches("test result: ok. 1 passed").count() != phases {
        return Err(Failure::Failed(format!("it failed in the VM (status {})", outcome.status)));
    }
    Ok(())
}

/// Declares tests that run in VMs: `vm_tests! { PLAIN; fn name() { ... } ... }`. What is in a block after `reboot` is run
/// when the machine was shut down and has booted anew: `fn name() { ... } reboot { ... }`.
#[macro_export]
macro_rules! vm_tests {
    ($needs:expr; $($(#[$meta:meta])* fn $name:ident() $body:block $(reboot $later:block)*)+) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() {
                // libtest names a test by its path without the crate.
                let path = concat!(module_path!(), "::", stringify!($name));
                let name = path.split_once("::").map_or(path, |(_, name)| name);
                let programs = [
                    ("memcharge-probe", env!("CARGO_BIN_EXE_memcharge-probe")),
                    ("memcharge-demo", env!("CARGO_BIN_EXE_memcharge-demo")),
                    ("memcharge-torture", env!("CARGO_BIN_EXE_memcharge-torture")),
                ];
                $crate::host::in_vm(&$needs, name, &programs, &[|| $body, $(|| $later),*]);
            }
        )+
    };
}
