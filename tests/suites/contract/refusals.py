"""What must be refused, and with which error. Most of it follows from the XML alone."""

from gi.repository import GLib

from bus import PROPERTIES, ROOT, Wrong, check

# A value of another type, for each type of an argument or option.
OTHER = {
    "s": GLib.Variant("u", 7),
    "a{sv}": GLib.Variant("s", "x"),
    "as": GLib.Variant("s", "x"),
    "b": GLib.Variant("s", "yes"),
    "t": GLib.Variant("b", True),
    "u": GLib.Variant("b", True),
}

# Arguments with which each method that takes some would come to the one that is wrong. A method without an entry is an
# error: a new one in the XML needs one.
ARGUMENTS = {
    "Manager.Mount": ["w", {"Where": GLib.Variant("s", "/run/shared/w"), "Target": GLib.Variant("s", "/t")}],
    "Manager.Unmount": ["m", {}],
    "Manager.GetMount": ["m"],
    "Manager.GetMountByPath": ["/run/shared/m"],
    "Manager.CatConfig": ["f"],
    "Manager.GetHistory": [{}],
    "Manager.GetEvent": ["0" * 32],
    "Mount.SetPolicy": [{"Reclaim": GLib.Variant("b", False)}],
    "Mount.Retarget": ["/other", {}],
}

# The options that are no properties of a mount, with their types.
OPTIONS = {
    "Manager.Mount": {"Persist": "b", "Wait": "b"},
    "Manager.Unmount": {"Lazy": "b"},
    "Manager.GetHistory": {"Mount": "s", "Since": "t", "Limit": "u"},
    "Mount.Retarget": {"Mode": "s", "Wait": "b"},
}


def text(string):
    """An argument that is a text."""
    return GLib.Variant("(s)", (string,))


def options_of(interfaces, member):
    """The options of a method with their types: those above, and the mount's properties that can be given."""
    options = dict(OPTIONS.get(member, {}))
    if member in ("Manager.Mount", "Mount.SetPolicy"):
        properties = interfaces["Mount"].properties
        policy = ["OnFull", "Reserve", "Reclaim", "DeadlineUSec", "SizeMax", "InodesMax", "KillVictim", "KillScope"]
        policy += ["KillProtect", "KillCooldownUSec"]
        made = ["Where", "Target", "Backend", "Options", "Mode", "Uid", "Gid", "Sparse"]
        names = policy + made if member == "Manager.Mount" else policy
        options.update({name: properties[name] for name in names})
    return options


def wrong_arguments(bus, mount):
    """Every argument of every method with a wrong type, and every option with a wrong name or type."""
    for short, path in [("Manager", ROOT), ("Mount", mount)]:
        interface = bus.interfaces[short]
        for method, (ins, _) in interface.methods.items():
            member = f"{short}.{method}"
            given = ARGUMENTS.get(member, [])
            check(len(given) == len(ins), f"ARGUMENTS has no entry that fits {member}: {ins}")
            for at, signature in enumerate(ins):
                values = [GLib.Variant(of, value) for of, value in zip(ins, given)]
                values[at] = OTHER[signature]
                bus.refused("InvalidArgs", "", path, interface.name, method, GLib.Variant.new_tuple(*values))
                if signature == "a{sv}":
                    wrong_options(bus, path, interface, method, given, at)
            if ins:
                bus.refused("InvalidArgs", "", path, interface.name, method, GLib.Variant("()", ()))


def wrong_options(bus, path, interface, method, given, at):
    """An option that there is not, and each option with another type than its own."""
    member = f"{interface.short}.{method}"
    signature = "(" + "".join(interface.methods[method][0]) + ")"
    wrong = {"NoSuchOption": GLib.Variant("b", True)}
    wrong.update({name: OTHER[of] for name, of in options_of(bus.interfaces, member).items()})
    for name, value in wrong.items():
        if name in ("Uid", "Gid"):
            # Numbers or names.
            value = GLib.Variant("d", 1.5)
        arguments = list(given)
        arguments[at] = {**given[at], name: value}
        bus.refused("InvalidOption", name, path, interface.name, method, GLib.Variant(signature, tuple(arguments)))


def names_that_do_not_exist(bus, mount):
    """Names of mounts, targets, objects and members that there are not."""
    manager, of_mount = bus.interfaces["Manager"].name, bus.interfaces["Mount"].name
    none = GLib.Variant("()", ())
    options = GLib.Variant("(sa{sv})", ("nobody", {}))
    bus.refused("NoSuchMount", "nobody", ROOT, manager, "GetMount", text("nobody"))
    bus.refused("NoSuchMount", "nobody", ROOT, manager, "Unmount", options)
    bus.refused("NoSuchMount", "/nowhere", ROOT, manager, "GetMountByPath", text("/nowhere"))
    bus.refused("NoSuchMount", "nobody", ROOT, manager, "CatConfig", text("nobody"))
    bus.refused("InvalidOption", "", ROOT, manager, "GetEvent", text("not-hex"))
    bus.refused("UnknownMethod", "", ROOT, manager, "NoSuchMethod", none)
    bus.refused("UnknownInterface", "", ROOT, manager + "2", "GetMount", text("m"))
    bus.refused("UnknownObject", "", mount + "2", of_mount, "RevertPolicy", none)
    bus.refused("UnknownProperty", "", mount, PROPERTIES, "Get", GLib.Variant("(ss)", (of_mount, "NoSuch")))


def nothing_can_be_set(bus, path, short):
    """Every property of the contract is read-only, also for root."""
    interface = bus.interfaces[short]
    for name in interface.properties:
        check(interface.access[name] == "read", f"{short}.{name} is not read-only: this suite does not set it")
        value = GLib.Variant("(ssv)", (interface.name, name, GLib.Variant("s", "x")))
        # The daemon's library says so of a property that cannot be written.
        bus.refused("UnknownProperty", name, path, PROPERTIES, "Set", value)


def mounts_that_cannot_be(bus):
    """Each refusal of `Mount` has a name of its own, and leaves nothing behind."""
    manager = bus.interfaces["Manager"].name
    for error, name, where, target in [
        ("NameTaken", "m", "/run/shared/w", "/t"),
        ("MountPointBusy", "w", "/etc/memcharge", "/t"),
        ("UnsafeMountPoint", "w", "/usr", "/t"),
        ("NoSuchTarget", "w", "/run/shared/w", "/nobody"),
        ("NoMemoryController", "w", "/run/shared/w", "/t/own/bare"),
        ("InvalidOption", "a/b", "/run/shared/w", "/t"),
        ("InvalidOption", "w", "relative", "/t"),
    ]:
        options = {"Where": GLib.Variant("s", where), "Target": GLib.Variant("s", target)}
        bus.refused(error, "", ROOT, manager, "Mount", GLib.Variant("(sa{sv})", (name, options)))
    if [row[0] for row in bus.call(ROOT, "Manager", "ListMounts")] != ["m"]:
        raise Wrong("a refused mount is listed")
