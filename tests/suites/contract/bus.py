"""The daemon as a client sees it: typed calls, refusals by name, and all signals."""

import time

from gi.repository import Gio, GLib

NAME = "org.memcharge.Memcharge1"
ROOT = "/org/memcharge/Memcharge1"
STANDARD = "org.freedesktop.DBus.Error."
OWN = NAME + ".Error."
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECTS = "org.freedesktop.DBus.ObjectManager"

# The emulated processor of a test machine is slow; nothing comes near this on a real one.
PATIENCE = 90


class Wrong(Exception):
    """The daemon does not do what the contract says."""


def check(condition, what):
    """Raises `Wrong` with this text unless the condition holds."""
    if not condition:
        raise Wrong(what)


class Bus:
    """A connection that hears every signal of memcharged, and notes what was driven."""

    def __init__(self, interfaces):
        self.interfaces = interfaces
        self.by_name = {interface.name: interface for interface in interfaces.values()}
        self.driven = set()
        self.signals = []
        # What is wrong with signals. An exception would end in the main loop: who waits there raises it.
        self.wrong = []
        self.connection = Gio.bus_get_sync(Gio.BusType.SYSTEM, None)
        flags = Gio.DBusSignalFlags.NONE
        self.connection.signal_subscribe(NAME, None, None, None, None, flags, self._heard)

    def _heard(self, _connection, _sender, path, interface, member, parameters):
        self.signals.append((path, interface, member, parameters))
        contract = self.by_name.get(interface)
        if contract is None:
            return
        expected, found = contract.signals.get(member, "not in the XML"), parameters.get_type_string()
        if expected == found:
            self.driven.add(f"signal {contract.short}.{member}")
        elif member in contract.signals:
            self.wrong.append(f"the signal {member} has {found}; the XML says {expected}")
        else:
            self.wrong.append(f"the signal {member} is not in the XML")

    def call_raw(self, path, interface, method, parameters):
        """A call with any arguments; the reply as it is."""
        flags = Gio.DBusCallFlags.NONE
        limit = PATIENCE * 1000
        return self.connection.call_sync(NAME, path, interface, method, parameters, None, flags, limit, None)

    def call(self, path, short, method, *args):
        """A call as the XML describes it: the arguments get its types, the reply must have its type."""
        contract = self.interfaces[short]
        check(method in contract.methods, f"the XML has no method {short}.{method}")
        ins, out = contract.methods[method]
        check(len(ins) == len(args), f"{short}.{method} takes {ins}, not {args}")
        reply = self.call_raw(path, contract.name, method, GLib.Variant("(" + "".join(ins) + ")", args))
        found = reply.get_type_string()
        check(found == out, f"{short}.{method} replies {found}; the XML says {out}")
        self.driven.add(f"method {short}.{method}")
        values = reply.unpack()
        return values[0] if len(values) == 1 else values

    def refused(self, error, contains, path, interface, method, parameters):
        """A call that is refused with this error, whose message has this text."""
        names = [OWN + error, STANDARD + error]
        try:
            reply = self.call_raw(path, interface, method, parameters)
        except GLib.Error as found:
            name, message = Gio.DBusError.get_remote_error(found), found.message
            check(name in names, f"{method}{parameters}: {name} instead of {error}: {message}")
            check(contains in message, f"{method}{parameters}: {contains!r} is not in: {message}")
            return message
        raise Wrong(f"{method}{parameters} is not refused ({error}): {reply}")

    def get(self, path, short, name):
        """A property, whose type must be that of the XML."""
        contract = self.interfaces[short]
        arguments = GLib.Variant("(ss)", (contract.name, name))
        try:
            value = self.call_raw(path, PROPERTIES, "Get", arguments).get_child_value(0).get_variant()
        except GLib.Error as error:
            raise Wrong(f"{short}.{name} cannot be read: {error.message}") from error
        self.typed(short, name, value)
        self.driven.add(f"property {short}.{name}")
        return value.unpack()

    def typed(self, short, name, value):
        """A property's value must have the type that the XML gives it."""
        expected = self.interfaces[short].properties.get(name)
        check(expected is not None, f"the XML has no property {short}.{name}")
        found = value.get_type_string()
        check(found == expected, f"{short}.{name} is of type {found}; the XML says {expected}")

    def wait(self, what, look):
        """Runs the main loop, in which signals come in, until `look` finds something; returns it."""
        context = GLib.MainContext.default()
        # Wakes the loop up when it is too late.
        alarm = GLib.timeout_add_seconds(PATIENCE, lambda: GLib.SOURCE_CONTINUE)
        end = time.monotonic() + PATIENCE
        try:
            while True:
                check(not self.wrong, "; ".join(self.wrong))
                found = look()
                if found:
                    return found
                check(time.monotonic() < end, f"{what}: not within {PATIENCE} s")
                context.iteration(True)
        finally:
            GLib.source_remove(alarm)

    def heard(self, member, interface=None, path=None):
        """The arguments of the signals of this name so far."""
        return [
            parameters.unpack()
            for at, of, name, parameters in self.signals
            if name == member and interface in (None, of) and path in (None, at)
        ]

    def wait_signal(self, member, path, matches):
        """The first signal of this name from this object that matches."""

        def look():
            return [found for found in self.heard(member, path=path) if matches(found)]

        return self.wait(f"the signal {member} of {path}", look)[0]

    def changes(self, path, short):
        """What the signals PropertiesChanged of an interface have said: one dictionary for each."""
        name = self.interfaces[short].name
        return [found[1] for found in self.heard("PropertiesChanged", path=path) if found[0] == name]

    def wait_change(self, path, short, name, value=None):
        """Waits until a property is said to be changed (to this value)."""

        def look():
            for change in self.changes(path, short):
                if name in change and value in (None, change[name]):
                    return True
            return False

        self.wait(f"PropertiesChanged of {short}.{name}", look)
