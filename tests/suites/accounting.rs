//! Who pays (R5 to R8, R10, R11).

use memcharge_tests::{
    cgroup::{Cg, MIB},
    client::{Waiting, probe, report, report_while},
    host::PLAIN,
    mount::Mount,
    vm_tests,
    wait::until,
};

const SIZE: u64 = 64 * MIB;

/// What a client process may cost its own cgroup, page tables included (R5).
const CLIENT: u64 = 512 << 10;

/// The pages and the index nodes above them: within 1 % of the bytes.
fn assert_near(what: &str, grown: u64, bytes: u64) {
    let tolerance = bytes / 100;
    assert!(grown.abs_diff(bytes) <= tolerance, "{what}: {grown} is not {bytes} +- {tolerance}");
}

/// R8: unlink gives the memory back, to `at_most`. The kernel does so piece by piece: what is measured next begins where it has
/// come to rest.
fn given_back(target: &Cg, at_most: u64) {
    let mut last = u64::MAX;
    until("R8: unlink gives the memory back", || {
        let before = std::mem::replace(&mut last, target.current());
        (last <= at_most && last == before).then_some(())
    });
}

struct Scene {
    target: Cg,
    client: Cg,
    mount: Mount,
}

fn scene(more: &[&str]) -> Scene {
    let target = Cg::make("/target").max(256 * MIB);
    // The target gives the memory controller to its children, so the store's own cgroup has figures of its own.
    Cg::make("/target/own");
    let client = Cg::make("/client");
    let mount = Mount::make("m", "/target", more);
    // The first client brings the probe's own pages into the cache, the first file the mount's.
    let _ = probe(&Cg::make("/warm"), &["write", &mount.join("warm"), "4096"]).ok();
    Scene { target, client, mount }
}

impl Scene {
    /// Runs one probe in the client's cgroup: the target pays `bytes`, the client nothing but its own process.
    fn target_pays(&self, bytes: u64, own_buffer: u64, words: &[&str]) {
        let what = words.join(" ");
        let (target, client) = (self.target.current(), self.client.current());
        let stats = ["shmem", "file"].map(|key| self.client.stat(key));
        let (report, alive) = report_while(&self.client, words, || self.client.current());
        println!(
            "{what}: target {:+} KiB, client {:+} KiB while it runs",
            (self.target.current() as i64 - target as i64) / 1024,
            (alive as i64 - client as i64) / 1024,
        );
        assert_eq!((report.done, report.errno), (SIZE, None), "{what}");
        assert_near(&what, self.target.current().saturating_sub(target), bytes);
        assert!(
            alive.saturating_sub(client + own_buffer) <= CLIENT,
            "{what}: the client paid {client} -> {alive}"
        );
        assert_eq!(
            ["shmem", "file"].map(|key| self.client.stat(key)),
            stats,
            "{what}: the client's shmem and file"
        );
    }

    fn remove(&self, file: &str) {
        let before = self.target.current();
        std::fs::remove_file(self.mount.join(file)).unwrap();
        given_back(&self.target, before.saturating_sub(SIZE - SIZE / 100));
    }

    fn every_way(&self, blocks: &[&str]) {
        let (size, file) = (SIZE.to_string(), self.mount.join("f"));
        let source = self.mount.join("source");
        for block in blocks {
            self.target_pays(SIZE, block.parse().unwrap(), &["write", &file, &size, "--block", block]);
            self.remove("f");
        }
        self.target_pays(SIZE, 65536, &["write", &file, &size, "--append"]);
        self.remove("f");
        self.target_pays(SIZE, 0, &["fallocate", &file, &size]);
        self.remove("f");
        self.target_pays(SIZE, 0, &["write", &source, &size]);
        self.target_pays(SIZE, 0, &["copy", &source, &file]);
        self.remove("source");
        self.remove("f");
        // A pipe's 64 KiB are the client's own.
        self.target_pays(SIZE, 2 * 65536, &["splice-in", &file, &size]);
        self.remove("f");
        self.target_pays(SIZE, 0, &["map", &file, &size]);
        self.remove("f");
    }
}

vm_tests! { PLAIN;
    /// R5 with `sparse = "reserve"`.
    fn r5_the_target_pays_in_every_way() {
        scene(&[]).every_way(&["4096", "65536", "1048576"]);
    }

    /// R5 with `sparse = "sigbus"`.
    fn r5_the_target_pays_in_every_way_sigbus() {
        scene(&["--sparse", "sigbus"]).every_way(&["65536"]);
    }

    /// R6: the totals depend neither on the order, nor on the number of clients, nor on who was first.
    fn r6_order_and_number_of_clients_do_not_matter() {
        let Scene { target, client, mount } = scene(&[]);
        let other = Cg::make("/other");
        const SHARE: u64 = 8 * MIB;
        let half = SHARE.to_string();
        let size = (2 * SHARE).to_string();
        for round in 0..2 {
            for (first, second) in [(&client, &other), (&other, &client)] {
                let before = [&target, first, second].map(Cg::current);
                let (a, b) = (mount.join("a"), mount.join("b"));
                report(first, &["write", &a, &half]);
                report(second, &["write", &b, &half]);
                // Each overwrites, extends, maps and reads what the other made.
                report(first, &["write", &b, &size]);
                report(second, &["write", &a, &half]);
                report(second, &["map", &a, &half, "--as-is"]);
                report(first, &["read", &a]);
                let after = [&target, first, second].map(Cg::current);
                let grown = after[0] - before[0];
                assert!(grown.abs_diff(3 * SHARE) < MIB / 2, "round {round}: the target grew by {grown}");
                for client in [1, 2] {
                    let paid = after[client].saturating_sub(before[client]);
                    assert!(paid <= 3 * CLIENT, "round {round}: a client paid {paid}");
                }
                for file in [a, b] {
                    std::fs::remove_file(file).unwrap();
                }
                given_back(&target, before[0] + MIB);
            }
        }
    }

    /// R7: reading by read, mapping and sendfile charges the reader nothing.
    fn r7_reading_is_free() {
        let scene = scene(&[]);
        let file = scene.mount.join("f");
        report(&Cg::make("/writer"), &["write", &file, &SIZE.to_string()]);
        let target = scene.target.current();
        for words in [
            ["read", &file].as_slice(),
            &["read", &file, "--writable"],
            &["map-read", &file],
            &["sendfile", &file],
        ] {
            scene.target_pays(0, 65536, words);
        }
        assert!(scene.target.current().abs_diff(target) <= MIB, "the target pays for no reader either");
        // From a writable descriptor the kernel would make a copy on the client's bill: refused instead.
        let refused = report(&scene.client, &["sendfile", &file, "--writable"]);
        assert_eq!((refused.done, refused.errno), (0, Some(22)), "EINVAL");
    }

    /// R8: memory comes back when the last open and the last mapping are gone.
    fn r8_open_and_mapped_files_stay_charged_until_the_last_user_ends() {
        for sparse in ["reserve", "sigbus"] {
            let Scene { target, client, mount } = scene(&["--sparse", sparse]);
            let file = mount.join("f");
            report(&client, &["write", &file, &SIZE.to_string()]);
            let (open, mapped) =
                (Waiting::start(&client, &["hold", &file]), Waiting::start(&client, &["hold", &file, "--map"]));
            let full = target.current();
            std::fs::remove_file(&file).unwrap();
            open.end();
            assert!(target.current() > full - MIB, "{sparse}: the mapping still holds it");
            mapped.end();
            until("the last mapping gives it back", || (target.current() < full - SIZE + MIB).then_some(()));

            report(&client, &["write", &file, &SIZE.to_string()]);
            let punched = memcharge_tests::service::run(
                &["fallocate", "--punch-hole", "--offset", "0", "--length", &(SIZE / 2).to_string(), &file]);
            let _ = punched.ok();
            let kept = match sparse {
                "reserve" => SIZE,
                _ => SIZE / 2,
            };
            until("a punched hole keeps or gives back its pages", || {
                (mount.number("used_bytes").abs_diff(kept) < MIB).then_some(())
            });
            report(&client, &["truncate", &file, "0"]);
            until("truncation gives everything back", || (mount.number("used_bytes") < MIB).then_some(()));
            mount.unmount();
        }
    }

    /// R10: a mount costs its target little when nobody uses it; inodes have a cap.
    fn r10_an_idle_mount_is_small_and_inodes_are_capped() {
        let Scene { target, client, mount } = scene(&["--set", "inodes=1000"]);
        std::fs::remove_file(mount.join("warm")).unwrap();
        // Large requests on several threads touch every buffer.
        for _ in 0..2 {
            report(&client, &["write", &mount.join("f"), "8388608", "--block", "4194304"]);
            report(&client, &["read", &mount.join("f"), "--writable"]);
            std::fs::remove_file(mount.join("f")).unwrap();
        }
        let idle = until("the file's pages are gone", || {
            let current = target.current();
            (current < 6 * MIB).then_some(current)
        });
        println!("an idle mount costs {} KiB", idle / 1024);
        println!("{}", mount.leaf().read("memory.stat"));
        assert!(idle <= 3 * MIB, "{idle} bytes");
        let made = report(&client, &["make", &mount.place, "file", "2000"]);
        assert_eq!((made.done, made.errno), (999, Some(28)), "the root directory is one of 1000");
        assert_eq!(mount.number("inodes_used"), 1000);
        assert_eq!(mount.number("inodes_max"), 1000);
    }

    /// R11: the numbers agree with the kernel's.
    fn r11_the_numbers_agree_with_the_kernel() {
        let Scene { target, client, mount } = scene(&["--size", "128M"]);
        report(&client, &["write", &mount.join("f"), &SIZE.to_string()]);
        let properties = mount.properties();
        let number = |name: &str| properties[name].as_u64().unwrap();
        assert_eq!(number("used_bytes"), SIZE + 4096, "f and warm");
        assert_eq!(number("size_max"), 128 * MIB);
        assert_near("ChargedBytes", number("charged_bytes"), target.current());
        assert_near("shmem", mount.leaf().stat("shmem"), number("used_bytes"));
        let id = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/sys/fs/cgroup/target").unwrap());
        assert_eq!(number("target_id"), id);
        assert_eq!(properties["target"], "/target", "R31: shown as it is accepted");
        let df = memcharge_tests::service::run(&["df", "--output=size,used,avail", "-B1", &mount.place]).ok().out;
        let df: Vec<u64> = df.lines().nth(1).unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(df[..2], [128 * MIB, SIZE + 4096]);
        assert_eq!(df[2], 64 * MIB - 4096, "the cap leaves less than the target");
    }
}
