//! The system's users and groups, from its files.

use std::fs;

use crate::fragment::Accounts;

impl Accounts<'static> {
    /// Looks names up in `/etc/passwd` and `/etc/group`, each time anew. Other sources of users are not asked: the
    /// daemon must be able to start before the network is there.
    pub fn system() -> Self {
        Accounts { user: &read_user, group: &read_group }
    }
}

fn read_user(name: &str) -> Option<u32> {
    parse_account(&fs::read("/etc/passwd").ok()?, name)
}

fn read_group(name: &str) -> Option<u32> {
    parse_account(&fs::read("/etc/group").ok()?, name)
}

/// The third field of the line whose first field is `name`: the same place in both files.
fn parse_account(text: &[u8], name: &str) -> Option<u32> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find(|line| line.split(|byte| *byte == b':').next() == Some(name.as_bytes()))?;
    let number = line.split(|byte| *byte == b':').nth(2)?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_field_is_the_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n# \xff\nwww-data:x:33:33::/:\nbroken:x\nodd:x:y:1\n";
        for (name, id) in
            [("root", Some(0)), ("www-data", Some(33)), ("broken", None), ("odd", None), ("ro", None)]
        {
            assert_eq!(parse_account(passwd, name), id, "{name}");
        }
        assert_eq!(parse_account(b"", "root"), None);
    }

    #[test]
    fn root_is_known_everywhere() {
        assert_eq!((Accounts::system().user)("root"), Some(0));
        assert_eq!((Accounts::system().group)("root"), Some(0));
    }
}
