//! How a target is, as far as it keeps its stores from serving. Pure.

/// The condition of a store's place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Health {
    /// It can serve.
    #[default]
    Fine,
    /// A `memory.high` is exceeded: the kernel slows the store down.
    Throttled(String),
    /// It is frozen, and its clients wait.
    Frozen(String),
    /// It serves what exists, and nothing may grow.
    Degraded(String),
}

/// What was read of a target, and of the cgroup of one of its stores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    /// Whether the target's path still leads to the cgroup that the mount was made on; `None`: to nothing.
    pub(crate) same: Option<bool>,
    /// Whether it has the memory controller.
    pub(crate) memory: bool,
    /// A cgroup that is to be frozen: the target, or one above.
    pub(crate) frozen: Option<String>,
    /// A cgroup that exceeds its `memory.high`.
    pub(crate) over_high: Option<String>,
    /// Whether the store is in its own cgroup.
    pub(crate) at_home: bool,
}

impl Reading {
    /// What that means. What keeps clients waiting comes first, then what keeps files from growing.
    pub(crate) fn health(&self, target: &str, leaf: &str) -> Health {
        if self.same.is_none() {
            return Health::Degraded(format!(
                "the target {target} was removed; nothing can grow; unmount, and mount on another target"
            ));
        }
        if self.same == Some(false) {
            return Health::Degraded(format!(
                "the target {target} was removed, and what is at its path is another cgroup; nothing can grow; unmount, \
                 and mount again"
            ));
        }
        if let Some(frozen) = &self.frozen {
            return Health::Frozen(format!(
                "{frozen} is frozen; whoever uses the mount waits until it is thawed"
            ));
        }
        if !self.memory {
            return Health::Degraded(format!(
                "the target {target} has lost the memory controller; nothing can grow; write +memory to \
                 cgroup.subtree_control of its parent"
            ));
        }
        if !self.at_home {
            return Health::Degraded(format!(
                "the store was moved out of its cgroup {leaf}; nothing can grow; move it back"
            ));
        }
        if let Some(path) = &self.over_high {
            return Health::Throttled(format!(
                "{path} exceeds its memory.high; the kernel slows the store down"
            ));
        }
        Health::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Reading {
        Reading { same: Some(true), memory: true, frozen: None, over_high: None, at_home: true }
    }

    #[test]
    fn each_trouble_has_its_state_and_its_words() {
        let path = || Some("/a".to_owned());
        for (reading, word, part) in [
            (fine(), "fine", ""),
            (Reading { same: None, ..fine() }, "degraded", "was removed; nothing can grow"),
            (Reading { same: Some(false), ..fine() }, "degraded", "another cgroup"),
            (Reading { frozen: path(), ..fine() }, "frozen", "/a is frozen"),
            (Reading { memory: false, ..fine() }, "degraded", "+memory"),
            (Reading { at_home: false, ..fine() }, "degraded", "moved out of its cgroup /t/leaf"),
            (Reading { over_high: path(), ..fine() }, "throttled", "/a exceeds its memory.high"),
            (Reading { frozen: path(), at_home: false, over_high: path(), ..fine() }, "frozen", "/a"),
        ] {
            let (found, reason) = match reading.health("/t", "/t/leaf") {
                Health::Fine => ("fine", String::new()),
                Health::Throttled(reason) => ("throttled", reason),
                Health::Frozen(reason) => ("frozen", reason),
                Health::Degraded(reason) => ("degraded", reason),
            };
            assert_eq!(found, word, "{reading:?}");
            assert!(reason.contains(part), "{reason}");
        }
    }
}
