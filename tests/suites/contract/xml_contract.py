"""The contract: what the XML files say, and nothing else."""

import pathlib
import re
import xml.etree.ElementTree as etree

EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


class Interface:
    """One interface: its members with their D-Bus signatures."""

    def __init__(self, element):
        self.name = element.get("name")
        self.short = self.name.rsplit(".", 1)[1]
        # Method: the signatures of its arguments, one by one, and the signature of the reply.
        self.methods = {}
        for method in element.findall("method"):
            args = method.findall("arg")
            ins = [arg.get("type") for arg in args if arg.get("direction", "in") == "in"]
            outs = [arg.get("type") for arg in args if arg.get("direction", "in") == "out"]
            self.methods[method.get("name")] = (ins, "(" + "".join(outs) + ")")
        self.signals = {
            signal.get("name"): "(" + "".join(arg.get("type") for arg in signal.findall("arg")) + ")"
            for signal in element.findall("signal")
        }
        self.properties, self.access, self.emits = {}, {}, {}
        for found in element.findall("property"):
            name = found.get("name")
            notes = {note.get("name"): note.get("value") for note in found.findall("annotation")}
            self.properties[name] = found.get("type")
            self.access[name] = found.get("access")
            # D-Bus says: without the annotation it is true.
            self.emits[name] = notes.get(EMITS, "true")

    def members(self):
        """Everything that has to be driven."""
        kinds = [("method", self.methods), ("signal", self.signals), ("property", self.properties)]
        return {f"{kind} {self.short}.{name}" for kind, names in kinds for name in names}

    def that_emit(self, how):
        """The properties whose EmitsChangedSignal is this."""
        return {name for name, found in self.emits.items() if found == how}


def load(directory):
    """All interfaces of the XML files in a directory, by the last part of their names."""
    found = {}
    for path in sorted(pathlib.Path(directory).glob("org.memcharge.Memcharge1.*.xml")):
        for element in etree.parse(path).getroot().findall("interface"):
            interface = Interface(element)
            found[interface.short] = interface
    return found


def keys_of_events(directory):
    """The keys of an event with their types, from the comment that lists them; without those of a dry run."""
    text = (pathlib.Path(directory) / "org.memcharge.Memcharge1.Manager.xml").read_text()
    listed = text.split("exactly these keys:", 1)[1].split("-->", 1)[0]
    keys = {}
    for line in re.findall(r"^    ([A-Z]\w+ [a-z](?:, [A-Z]\w+ [a-z])*)(?:  .*)?$", listed, re.MULTILINE):
        keys.update(entry.split(" ") for entry in line.split(", "))
    del keys["WouldHave"]
    return keys
