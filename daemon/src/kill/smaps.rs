//! How much memory a process has for itself alone: `/proc/PID/smaps`.

use std::io::{self, BufRead};

use memcharge_policy::Bytes;

/// Lines are cut here, in bytes. Only the path of a mapping is longer.
const MAX_LINE: u64 = 4096;

/// Sums up, over the mappings of an smaps file, anonymous memory that nobody else has mapped: of each mapping the
/// lesser of its private and its anonymous pages. Memory shared with a living relative since a fork, and files with
/// those of tmpfs among them, count as nothing: killing the process does not free them.
///
/// It is a lower bound, with two exceptions. A process that lives in the same memory as another one (`CLONE_VM`, or
/// vfork until exec) seems to have it alone. And in a private mapping of a file, pages of the file that only this
/// process has mapped make up for anonymous ones that it shares.
///
/// A text that ends early counts as far as it goes.
pub(super) fn sum_private(mut smaps: impl BufRead) -> io::Result<Bytes> {
    let mut sum = Bytes(0);
    let mut private = Bytes(0);
    let mut line = Vec::new();
    loop {
        line.clear();
        read_line(&mut smaps, &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(sum);
        }
        // In the order of the kernel: Anonymous comes last of these.
        match line.split(|byte| *byte == b':').next() {
            Some(b"Private_Clean") => private = parse_kib(&line)?,
            Some(b"Private_Dirty") => private = private.plus(parse_kib(&line)?),
            Some(b"Anonymous") => sum = sum.plus(parse_kib(&line)?.min(std::mem::take(&mut private))),
            _ => {}
        }
    }
}

/// One line, cut if it is too long. At the end of the text it has no newline.
fn read_line(text: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    io::Read::take(text.by_ref(), MAX_LINE).read_until(b'\n', line)?;
    if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
        text.skip_until(b'\n')?;
        line.push(b'\n');
    }
    Ok(())
}

/// The number of a line like `Anonymous:            12 kB`.
fn parse_kib(line: &[u8]) -> io::Result<Bytes> {
    let kib = || {
        let (_, value) = str::from_utf8(line).ok()?.split_once(':')?;
        let number: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        number.checked_mul(1024).map(Bytes)
    };
    kib().ok_or_else(|| {
        let line = String::from_utf8_lossy(line);
        io::Error::new(io::ErrorKind::InvalidData, format!("the line {line:?} is not as documented"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping as Linux 6.12 shows it, with the lines that count and their neighbours.
    fn mapping(name: &str, clean: u64, dirty: u64, anonymous: u64) -> String {
        format!(
            "7f2c40000000-7f2c40021000 rw-p 00000000 00:00 0    {name}\n\
             Size:                132 kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n\
             Rss:                  96 kB\nPss:                  96 kB\nPss_Dirty:            96 kB\n\
             Shared_Clean:          8 kB\nShared_Dirty:         16 kB\n\
             Private_Clean:  {clean:8} kB\nPrivate_Dirty:  {dirty:8} kB\n\
             Referenced:           96 kB\nAnonymous:      {anonymous:8} kB\nKSM:                   0 kB\n\
             LazyFree:              0 kB\nAnonHugePages:         0 kB\nShmemPmdMapped:        0 kB\n\
             Private_Hugetlb:    2048 kB\nSwap:                  0 kB\nSwapPss:               0 kB\n\
             Locked:                0 kB\nTHPeligible:           0\nVmFlags: rd wr mr mw me ac sd\n"
        )
    }

    fn sum(smaps: &str) -> Bytes {
        sum_private(smaps.as_bytes()).unwrap()
    }

    #[test]
    fn r20_only_memory_that_a_kill_frees_counts() {
        for (smaps, kib, what) in [
            (String::new(), 0, "no mappings"),
            (mapping("[heap]", 0, 96, 96), 96, "a heap of its own"),
            (mapping("[heap]", 8, 88, 96), 96, "some of it was not written to since swap-in"),
            (mapping("[heap]", 0, 16, 96), 16, "most of it is shared with a child"),
            (mapping("/run/shared/x", 0, 96, 0), 0, "this mount's pages"),
            (mapping("/usr/lib/libc.so.6", 600, 12, 12), 12, "a library"),
            (mapping("[heap]", 0, 96, 96) + &mapping("/x: 1 kB", 0, 4, 4), 100, "several"),
            (
                mapping("", 0, 4, 0) + &mapping("", 0, 0, 96),
                0,
                "what one mapping has does not count for another",
            ),
            (mapping(&"x".repeat(9000), 0, 96, 96), 96, "a long path"),
            (mapping(&format!("{}\\012Anonymous: 7 kB", "x".repeat(4060)), 0, 4, 4), 4, "a hostile path"),
        ] {
            assert_eq!(sum(&smaps), Bytes::kib(kib), "{what}");
        }
    }

    #[test]
    fn what_was_not_read_counts_as_nothing() {
        let smaps = mapping("[heap]", 0, 96, 96) + &mapping("[stack]", 0, 4, 4);
        let cut = |at: &str| sum(&smaps[..smaps.rfind(at).unwrap() + at.len()]);
        assert_eq!(cut("Anonymous:    "), Bytes::kib(96));
        assert_eq!(cut("Private_Dirty:  "), Bytes::kib(96));
        assert_eq!(cut("Anonymous:             4 kB\n"), Bytes::kib(100));
    }

    #[test]
    fn a_malformed_number_is_an_error() {
        for bad in [
            "Anonymous: 4\n",
            "Anonymous: -4 kB\n",
            "Private_Dirty: kB\n",
            "Private_Clean: 99999999999999999999 kB\n",
        ] {
            assert!(sum_private(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
