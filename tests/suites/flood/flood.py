"""Floods memcharged with calls, on a socket of its own: a library would read replies, and have limits.

Usage: flood.py MODE COUNT MEMBER
MODE: `read` (all replies are read), `deaf` (none is, ever), `quiet` (no reply is asked for), `paced` (none is read until all
calls are out, few at a time, and then there must be replies again).
MEMBER: a key of CALLS, or `options=BYTES` for calls with so many bytes of options.

Says `sent COUNT answered N refused M` when all calls are out (N and M: what was read by then), then stays connected until
its input ends. Says `disconnected` where the bus has closed the connection. `paced` says `kept BYTES answered N
refused M`: what the bus had kept, and the replies in it.
"""

import collections
import itertools
import os
import select
import socket
import string as string_module
import struct
import sys
import time

NAME = "org.memcharge.Memcharge1"
ROOT = "/org/memcharge/Memcharge1"
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
NO_REPLY_EXPECTED = 1
PATIENCE = 120


def string(text):
    """A string or object path on the wire."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def pad(data, to):
    """The data, up to the next multiple of `to`."""
    return data + b"\0" * (-len(data) % to)


def variant_text(text):
    """A variant that holds a string."""
    return b"\x01s\0" + b"\0" + string(text)


def header(serial, flags, destination, path, interface, member, signature, body_length):
    """The header of a method call."""
    fields = b""
    for code, of, text in [(1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination)]:
        fields = pad(fields, 8) + bytes([code, 1]) + of.encode() + b"\0" + string(text)
    if signature:
        fields = pad(fields, 8) + b"\x08\x01g\0" + bytes([len(signature)]) + signature.encode() + b"\0"
    start = struct.pack("<cBBBIII", b"l", METHOD_CALL, flags, 1, body_length, serial, len(fields))
    return pad(start + fields, 8)


def many_options(size):
    """About `size` bytes of options, a{sv}: small ones, since each of them costs its reader the most, and each with a name of
    its own, since a reader keeps one of each name."""
    start, end = struct.pack("<I", 4), b"\0\x01y\0\0"
    padding = b"\0" * (-len(start + b"name" + end) % 8)
    names = map(bytes, itertools.product(string_module.ascii_letters.encode() + string_module.digits.encode(), repeat=4))
    count = (size - 16) // len(start + b"name" + end + padding) + 1
    data = (end + padding + start).join(itertools.islice(names, count))
    data = start + data + end
    # The array begins where its first entry is aligned to 8.
    return struct.pack("<II", len(data), 0) + data


def calls(member):
    """Interface, member, signature and body of the calls."""
    if member.startswith("options="):
        body = many_options(int(member.removeprefix("options=")))
        return NAME + ".Manager", "GetHistory", "a{sv}", body
    return {
        "Get": ("org.freedesktop.DBus.Properties", "Get", "ss", pad(string(NAME + ".Manager"), 4) + string("Version")),
        "GetManagedObjects": ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "", b""),
        "GetHistory": (NAME + ".Manager", "GetHistory", "a{sv}", struct.pack("<II", 0, 0)),
        "ListMounts": (NAME + ".Manager", "ListMounts", "", b""),
    }[member]


class Replies:
    """Counts the replies in a stream of messages; signals are left out."""

    def __init__(self):
        self.data = bytearray()
        self.kinds = collections.Counter()

    def feed(self, data):
        """More of the stream."""
        self.data += data
        at = 0
        while len(self.data) - at >= 16:
            kind = self.data[at + 1]
            body, _, fields = struct.unpack_from("<III", self.data, at + 4)
            length = 16 + fields + -fields % 8 + body
            if len(self.data) - at < length:
                break
            self.kinds[kind] += 1
            at += length
        del self.data[:at]

    def count(self):
        """Replies of both kinds."""
        return self.kinds[METHOD_RETURN] + self.kinds[ERROR]


def connect():
    """A connection that has said hello."""
    bus = socket.socket(socket.AF_UNIX)
    bus.connect("/run/dbus/system_bus_socket")
    bus.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    assert bus.recv(4096).startswith(b"OK"), "the bus does not let us in"
    bus.sendall(b"BEGIN\r\n")
    own = "org.freedesktop.DBus"
    bus.sendall(header(1, 0, own, "/org/freedesktop/DBus", own, "Hello", "", 0))
    replies = Replies()
    while not replies.count():
        replies.feed(bus.recv(65536))
    return bus


def batches(mode, count, parts):
    """All calls on the wire, some at a time."""
    interface, member, signature, body = parts
    flags = NO_REPLY_EXPECTED if mode == "quiet" else 0
    call = header(0, flags, NAME, ROOT, interface, member, signature, len(body))
    start, end = call[:8], call[12:] + body
    at_once = max(1, 65536 // len(call + body))
    for first in range(2, count + 2, at_once):
        serials = range(first, min(first + at_once, count + 2))
        yield b"".join(start + struct.pack("<I", serial) + end for serial in serials)


def send(bus, mode, count, parts):
    """Sends all calls as fast as the bus takes them, and counts the replies where they are read. None: the bus has closed
    the connection."""
    replies, todo, out = Replies(), batches(mode, count, parts), memoryview(b"")
    bus.setblocking(False)
    while True:
        if not out:
            out = memoryview(next(todo, b""))
        if not out and (mode != "read" or replies.count() >= count):
            return replies.kinds
        readable, writable, _ = select.select([] if mode == "deaf" else [bus], [bus] if out else [], [])
        try:
            if readable:
                data = bus.recv(1 << 20)
                if not data:
                    return None
                replies.feed(data)
            if writable:
                out = out[bus.send(out[: 1 << 20]) :]
        except (BrokenPipeError, ConnectionResetError):
            return None


def ask(bus, parts, serial):
    """One call whose reply is waited for. Returns the kinds of what has come in meanwhile."""
    interface, member, signature, body = parts
    bus.sendall(header(serial, 0, NAME, ROOT, interface, member, signature, len(body)) + body)
    replies = Replies()
    while not replies.count() or replies.data:
        replies.feed(bus.recv(1 << 20))
    return replies.kinds


def send_paced(bus, count, parts):
    """Sends a few calls at a time, and reads nothing: each few have been answered, as another client sees, before the next.
    Returns how many bytes were kept, and the replies in them."""
    other = connect()
    other.settimeout(PATIENCE)
    at_once = 8
    interface, member, signature, body = parts
    for first in range(2, count + 2, at_once):
        for serial in range(first, first + at_once):
            bus.sendall(header(serial, 0, NAME, ROOT, interface, member, signature, len(body)) + body)
        assert ask(other, calls("Get"), first)[METHOD_RETURN], "another client is refused"
    kept, replies = 0, Replies()
    while select.select([bus], [], [], 1)[0]:
        data = bus.recv(1 << 20)
        kept += len(data)
        replies.feed(data)
    return kept, replies.kinds


def ask_again(bus, serial):
    """Waits until there are replies again."""
    tries = 0
    while not ask(bus, calls("Get"), serial + tries)[METHOD_RETURN]:
        tries += 1
        assert tries < 300, "it is never answered again"
        time.sleep(0.1)


def main(mode, count, member):
    """All of it."""
    bus = connect()
    if mode == "paced":
        kept, kinds = send_paced(bus, int(count), calls(member))
        ask_again(bus, int(count) + 2)
        print(f"kept {kept} answered {kinds[METHOD_RETURN]} refused {kinds[ERROR]}", flush=True)
        return
    kinds = send(bus, mode, int(count), calls(member))
    if kinds is None:
        print("disconnected", flush=True)
        return
    print(f"sent {count} answered {kinds[METHOD_RETURN]} refused {kinds[ERROR]}", flush=True)
    sys.stdin.read()


main(*sys.argv[1:])
