"""What is around the daemon: cgroups, files of the configuration, processes. Nothing of it goes over the bus."""

import os
import pathlib
import signal
import subprocess

MIB = 1 << 20
CGROUPS = pathlib.Path("/sys/fs/cgroup")
STORE = pathlib.Path("/usr/libexec/memcharge/memcharge-store")


def cgroup(name, limit):
    """A cgroup with a limit and a child: with that the store's own cgroup has figures of its own."""
    directory = CGROUPS / name
    (CGROUPS / "cgroup.subtree_control").write_text("+memory")
    directory.mkdir()
    (directory / "memory.max").write_text(str(limit))
    (directory / "cgroup.subtree_control").write_text("+memory")
    (directory / "own").mkdir()
    return directory


def run(*words):
    """A program that succeeds; what it prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def touch_limit(target, limit):
    """A process in the target fills its page cache beyond the limit: the kernel counts that in memory.events."""
    line = f"echo $$ >{target}/own/cgroup.procs; dd if=/dev/zero of=/var/tmp/big bs=1M count={limit // MIB + 8}"
    subprocess.run(["sh", "-c", line + " 2>/dev/null; rm /var/tmp/big"], check=True)


def allocate(path, size):
    """Asks a mount for a file of this size; whether it was granted."""
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.posix_fallocate(file, 0, size)
        return True
    except OSError as error:
        assert error.errno == 28, error
        return False
    finally:
        os.close(file)


class BrokenStore:
    """While this is entered no store can start."""

    def __enter__(self):
        STORE.rename(STORE.with_suffix(".good"))
        STORE.write_text("#!/bin/sh\nexit 70\n")
        STORE.chmod(0o755)

    def __exit__(self, *_):
        STORE.with_suffix(".good").rename(STORE)


def kill(pid):
    """Kills a process."""
    os.kill(pid, signal.SIGKILL)


def configure(directory, name, text):
    """Writes a file of a mount."""
    path = pathlib.Path(directory) / "mounts.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
