"""Drives all of memcharge's D-Bus interface, knowing nothing of it but the XML files. Fails where something is not as they
say, or was not driven.

Usage: main.py DIRECTORY-OF-THE-XML-FILES
"""

import pathlib
import sys

from gi.repository import GLib

import refusals
import scene
import xml_contract
from bus import OBJECTS, PROPERTIES, ROOT, Bus, Wrong, check
from scene import MIB

MOUNT = ROOT + "/mount/m"
LIMIT = 64 * MIB

# What stays as it was for as long as a mount is there, though the contract would let it change.
FIXED = {"Mount.Backend", "Mount.Sparse", "Mount.Mode", "Mount.Uid", "Mount.Gid", "Mount.Options"}


def options(**values):
    """Options by their names, each with its type in front: Reclaim=("b", False)."""
    return {name: GLib.Variant(*value) for name, value in values.items()}


def a_mount_comes(bus):
    """Mount, and all who tell of it."""
    where, target = ("s", "/run/shared/m"), ("s", "/t")
    made = bus.call(ROOT, "Manager", "Mount", "m", options(Where=where, Target=target, SizeMax=("t", 16 * MIB)))
    check(made == MOUNT, f"Mount replies {made}")
    bus.wait_signal("MountNew", ROOT, lambda args: args == ("m", MOUNT))
    interfaces = bus.interfaces
    added = bus.wait_signal("InterfacesAdded", ROOT, lambda args: args[0] == MOUNT)
    check(interfaces["Mount"].name in added[1], f"InterfacesAdded: {added}")
    for method, argument in [("GetMount", "m"), ("GetMountByPath", "/run/shared/m/a/b")]:
        check(bus.call(ROOT, "Manager", method, argument) == MOUNT, f"{method} finds another mount")
    rows = bus.call(ROOT, "Manager", "ListMounts")
    check(rows == [("m", "/run/shared/m", "/t", 0, MOUNT)], f"ListMounts: {rows}")
    return bus.wait_signal("InterfacesAdded", ROOT, lambda args: "/target/" in args[0])[0]


def everything_can_be_read(bus, target):
    """Each property alone, all at once, and all of all objects: the names and types of the XML, no more and no less."""
    reply = bus.call_raw(ROOT, OBJECTS, "GetManagedObjects", None)
    check(reply.get_type_string() == "(a{oa{sa{sv}}})", f"GetManagedObjects: {reply.get_type_string()}")
    # The nodes on the way to an object have interfaces that every object has.
    managed = {path: found for path, found in reply.unpack()[0].items() if set(found) & set(bus.by_name)}
    check(set(managed) == {MOUNT, target}, f"GetManagedObjects: {list(managed)}")
    for short, path in [("Manager", ROOT), ("Mount", MOUNT), ("Target", target)]:
        interface = bus.interfaces[short]
        reply = bus.call_raw(path, PROPERTIES, "GetAll", GLib.Variant("(s)", (interface.name,)))
        values = reply.get_child_value(0)
        entries = [values.get_child_value(at) for at in range(values.n_children())]
        for entry in entries:
            bus.typed(short, entry.get_child_value(0).get_string(), entry.get_child_value(1).get_variant())
        names = {entry.get_child_value(0).get_string() for entry in entries}
        check(names == set(interface.properties), f"GetAll of {short}: {names ^ set(interface.properties)}")
        for name in interface.properties:
            bus.get(path, short, name)
        if path != ROOT:
            shown = set(managed[path][interface.name])
            check(shown == names, f"GetManagedObjects, {short}: {shown ^ names}")
        refusals.nothing_can_be_set(bus, path, short)
    check(bus.get(target, "Target", "Mounts") == [MOUNT], "Target.Mounts")
    check(bus.get(ROOT, "Manager", "MountCount") == 1, "Manager.MountCount")


def policies_change(bus):
    """SetPolicy says once, in one signal, all that it has changed; RevertPolicy likewise."""
    policy = options(
        OnFull=("s", "kill"), Reserve=("t", 3 * MIB), Reclaim=("b", False), DeadlineUSec=("t", 5_000_000),
        SizeMax=("t", 12 * MIB), InodesMax=("t", 5000), KillVictim=("s", "newest"), KillScope=("s", "cgroup"),
        KillProtect=("as", ["db-*.service"]), KillCooldownUSec=("t", 2_000_000),
    )
    before = {name: bus.get(MOUNT, "Mount", name) for name in policy}
    seen = len(bus.changes(MOUNT, "Mount"))
    first = bus.call(MOUNT, "Mount", "SetPolicy", policy)
    bus.call(MOUNT, "Mount", "RevertPolicy")
    second = bus.call(MOUNT, "Mount", "SetPolicy", options(Reclaim=("b", False)))
    check(second > first, f"the generation goes from {first} to {second}")
    # Signals come in order: with this one those of the calls before are here.
    bus.wait("the change of Reclaim alone", lambda: {"Reclaim": False} in bus.changes(MOUNT, "Mount")[seen:])
    bus.call(MOUNT, "Mount", "RevertPolicy")
    bus.wait("its end", lambda: {"Reclaim": True} in bus.changes(MOUNT, "Mount")[seen:])
    told = bus.changes(MOUNT, "Mount")[seen:]
    new = {name: value.unpack() for name, value in policy.items()}
    expected = [new, before, {"Reclaim": False}, {"Reclaim": True}]
    check(told == expected, f"PropertiesChanged: {told} instead of {expected}")
    too_small = GLib.Variant("(a{sv})", (options(Sparse=("s", "sigbus")),))
    bus.refused("InvalidOption", "Sparse", MOUNT, bus.interfaces["Mount"].name, "SetPolicy", too_small)


def arbitrations_are_told(bus, events):
    """A refusal: the signals, the history and the property say the same, with the keys and types of the contract."""
    check(not scene.allocate("/run/shared/m/f", 32 * MIB), "32 MiB fit into 16")
    args = bus.wait_signal("RemoteOom", ROOT, lambda args: args[0] == MOUNT)
    _, outcome, details = args
    check(outcome == "enospc", f"RemoteOom: {outcome}")
    bus.wait_signal("Outcome", MOUNT, lambda args: args == (outcome, details))
    check(bus.call(ROOT, "Manager", "GetEvent", details["Id"]) == details, "GetEvent is not RemoteOom's")
    check(bus.get(MOUNT, "Mount", "LastOutcome")["Id"] == details["Id"], "LastOutcome is another event")
    one = bus.call(ROOT, "Manager", "GetHistory", options(Mount=("s", "m"), Limit=("u", 1), Since=("t", 0)))
    check(len(one) == 1 and one[0]["Id"] == details["Id"], f"GetHistory: {one}")
    typed = [found for _, _, name, found in bus.signals if name == "Outcome"][0].get_child_value(1)
    entries = [typed.get_child_value(at) for at in range(typed.n_children())]
    types = {entry.get_child_value(0).get_string(): entry.get_child_value(1).get_variant() for entry in entries}
    types = {name: value.get_type_string() for name, value in types.items()}
    check(types == events, f"the keys of an event: {sorted(set(types.items()) ^ set(events.items()))}")


def memory_events_are_told(bus, target):
    """The kernel's counters of the target."""
    scene.touch_limit(scene.CGROUPS / "t", LIMIT)
    deltas = bus.wait_signal("MemoryEvent", target, lambda args: "max" in args[0])[0]
    check(deltas["max"] > 0, f"MemoryEvent: {deltas}")
    check(bus.get(target, "Target", "Events")["max"] >= deltas["max"], "Events does not count what MemoryEvent told")


def a_store_goes_and_comes(bus):
    """State, StateReason and StorePid tell of a store that is given up, and of its recovery."""
    manager = bus.interfaces["Mount"].name
    bus.refused("Failed", "nothing to recover", MOUNT, manager, "Recover", GLib.Variant("()", ()))
    with scene.BrokenStore():
        scene.kill(bus.get(MOUNT, "Mount", "StorePid"))
        bus.wait_change(MOUNT, "Mount", "State", "failed")
    check("memchargectl recover m" in bus.get(MOUNT, "Mount", "StateReason"), "StateReason does not say what to do")
    bus.call(MOUNT, "Mount", "Recover")
    bus.wait_change(MOUNT, "Mount", "State", "active")
    check(bus.get(MOUNT, "Mount", "State") == "active", "the mount is not active again")
    bus.wait_change(MOUNT, "Mount", "StateReason", "")
    bus.wait_change(MOUNT, "Mount", "StorePid", bus.get(MOUNT, "Mount", "StorePid"))


def another_target_pays(bus):
    """Retarget: refused while there are data; one signal with all that is different then."""
    manager = bus.interfaces["Mount"].name
    scene.cgroup("other", LIMIT)
    check(scene.allocate("/run/shared/m/r", MIB), "1 MiB does not fit")
    bus.refused("Busy", "/t", MOUNT, manager, "Retarget", GLib.Variant("(sa{sv})", ("/other", {})))
    for mode, word in [("migrate", "not built yet"), ("half", "half")]:
        given = GLib.Variant("(sa{sv})", ("/other", options(Mode=("s", mode))))
        bus.refused("InvalidOption", word, MOUNT, manager, "Retarget", given)
    nowhere = GLib.Variant("(sa{sv})", ("/nowhere", options(Mode=("s", "future-only"))))
    bus.refused("NoSuchTarget", "/nowhere", MOUNT, manager, "Retarget", nowhere)
    bus.call(MOUNT, "Mount", "Retarget", "/other", options(Mode=("s", "future-only"), Wait=("b", False)))
    bus.wait_change(MOUNT, "Mount", "Target", "/other")
    [change] = [change for change in bus.changes(MOUNT, "Mount") if "Target" in change]
    check({"TargetId", "PreviousTargets", "StorePid"} <= set(change), f"not told at once: {change}")
    check(change["PreviousTargets"] == ["/t"], f"PreviousTargets: {change}")
    check(bus.get(MOUNT, "Mount", "PreviousBytes") >= MIB, "PreviousBytes is less than what the files held")


def a_target_comes_late(bus):
    """A mount waits for its target, and says when it is there."""
    path = ROOT + "/mount/late"
    made = options(Where=("s", "/run/shared/late"), Target=("s", "/late"), Wait=("b", True))
    bus.call(ROOT, "Manager", "Mount", "late", made)
    check(bus.get(path, "Mount", "State") == "waiting", "it does not wait")
    scene.cgroup("late", LIMIT)
    bus.wait_change(path, "Mount", "TargetId")
    bus.wait_change(path, "Mount", "State", "active")
    bus.call(ROOT, "Manager", "Unmount", "late", options(Lazy=("b", True)))


def files_are_followed(bus):
    """Reload, and what it changes; the configuration as text."""
    text = 'where = "/run/shared/f"\ntarget = "/t"\nsize = "1M"\n'
    path = ROOT + "/mount/f"
    below_run = str(scene.configure("/run/memcharge", "f.toml", text))
    generation = bus.get(ROOT, "Manager", "ConfigGeneration")
    bus.call(ROOT, "Manager", "Reload")
    bus.wait_change(ROOT, "Manager", "ConfigGeneration", generation + 1)
    check(bus.get(path, "Mount", "FragmentPath") == below_run, "FragmentPath")
    in_etc = scene.configure("/etc/memcharge", "f.toml", text)
    drop_in = scene.configure("/etc/memcharge", "f.toml.d/a.toml", 'size = "2M"\n')
    bus.call(ROOT, "Manager", "Reload")
    bus.wait_change(path, "Mount", "FragmentPath", str(in_etc))
    bus.wait_change(path, "Mount", "DropInPaths", [str(drop_in)])
    bus.wait_change(path, "Mount", "SizeMax", 2 * MIB)
    check('size = "2M"' in bus.call(ROOT, "Manager", "CatConfig", "f"), "CatConfig has not the drop-in's size")
    check(bus.call(ROOT, "Manager", "CheckConfig") == [], "CheckConfig finds errors")
    drop_in.write_text("sise = 1\n")
    [error] = bus.call(ROOT, "Manager", "CheckConfig")
    check((error["File"], error["Line"]) == (str(drop_in), 1) and "sise" in error["Message"], f"CheckConfig: {error}")
    manager = bus.interfaces["Manager"].name
    for method, arguments in [("Reload", GLib.Variant("()", ())), ("CatConfig", refusals.text("f"))]:
        bus.refused("Failed", "a.toml:1", ROOT, manager, method, arguments)
    for file in [in_etc, drop_in, pathlib.Path(below_run)]:
        file.unlink()
    bus.call(ROOT, "Manager", "Reload")
    bus.wait_signal("MountRemoved", ROOT, lambda args: args == ("f", path))


def a_mount_goes(bus):
    """Unmount, refused while it is in use, and all who tell of it."""
    manager = bus.interfaces["Manager"].name
    with open("/run/shared/m/f", "rb"):
        bus.refused("Busy", "python3", ROOT, manager, "Unmount", GLib.Variant("(sa{sv})", ("m", {})))
    bus.call(ROOT, "Manager", "Unmount", "m", {})
    bus.wait_signal("MountRemoved", ROOT, lambda args: args == ("m", MOUNT))
    gone = bus.wait_signal("InterfacesRemoved", ROOT, lambda args: args[0] == MOUNT)
    check(bus.interfaces["Mount"].name in gone[1], f"InterfacesRemoved: {gone}")
    bus.refused("NoSuchMount", "m", ROOT, manager, "GetMount", refusals.text("m"))


def the_log_level_is_set(bus):
    """org.freedesktop.LogControl1, whose contract is systemd's."""
    path, interface = "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1"
    reply = bus.call_raw(path, PROPERTIES, "GetAll", GLib.Variant("(s)", (interface,)))
    found = reply.unpack()[0]
    expected = {"LogLevel": "info", "LogTarget": "journal", "SyslogIdentifier": "memcharged"}
    check(found == expected, f"LogControl1: {found}")
    for level in ["debug", "info"]:
        value = GLib.Variant("(ssv)", (interface, "LogLevel", GLib.Variant("s", level)))
        bus.call_raw(path, PROPERTIES, "Set", value)
        get = GLib.Variant("(ss)", (interface, "LogLevel"))
        check(bus.call_raw(path, PROPERTIES, "Get", get).unpack() == (level,), f"the level is not {level}")
    for value in [GLib.Variant("s", "loud"), GLib.Variant("u", 7)]:
        wrong = GLib.Variant("(ssv)", (interface, "LogLevel", value))
        bus.refused("InvalidArgs", "", path, PROPERTIES, "Set", wrong)


def changes_are_those_of_the_contract(bus):
    """PropertiesChanged for what has it by the XML, with the values, and for nothing else."""
    changed = set()
    for path, _, member, parameters in bus.signals:
        if member != "PropertiesChanged":
            continue
        name, values, invalidated = parameters.unpack()
        check(name in bus.by_name, f"PropertiesChanged of {name} at {path}")
        check(not invalidated, f"PropertiesChanged without values: {invalidated}")
        entries, short = parameters.get_child_value(1), bus.by_name[name].short
        for at in range(entries.n_children()):
            entry = entries.get_child_value(at)
            bus.typed(short, entry.get_child_value(0).get_string(), entry.get_child_value(1).get_variant())
        changed |= {f"{short}.{key}" for key in values}
    may = {f"{short}.{name}" for short, found in bus.interfaces.items() for name in found.that_emit("true")}
    check(changed <= may, f"these do not emit PropertiesChanged by the XML, and do: {sorted(changed - may)}")
    check(not changed & FIXED, f"these are FIXED here, and have changed: {sorted(changed & FIXED)}")
    check(may <= changed | FIXED, f"the suite has not seen these change: {sorted(may - changed - FIXED)}")


def main(directory):
    """All of it, in this order."""
    interfaces, events = xml_contract.load(directory), xml_contract.keys_of_events(directory)
    bus = Bus(interfaces)
    scene.cgroup("t", LIMIT)
    (scene.CGROUPS / "t/own/bare").mkdir()
    target = a_mount_comes(bus)
    everything_can_be_read(bus, target)
    refusals.wrong_arguments(bus, MOUNT)
    refusals.names_that_do_not_exist(bus, MOUNT)
    refusals.mounts_that_cannot_be(bus)
    policies_change(bus)
    arbitrations_are_told(bus, events)
    memory_events_are_told(bus, target)
    a_store_goes_and_comes(bus)
    another_target_pays(bus)
    a_target_comes_late(bus)
    files_are_followed(bus)
    the_log_level_is_set(bus)
    a_mount_goes(bus)
    changes_are_those_of_the_contract(bus)
    check(not bus.wrong, "; ".join(bus.wrong))
    members = {member for interface in interfaces.values() for member in interface.members()}
    check(members <= bus.driven, f"the suite does not drive: {sorted(members - bus.driven)}")
    print(f"driven: {len(members)} members of the contract, {len(bus.signals)} signals heard")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Wrong as error:
        sys.exit(f"WRONG: {error}")
