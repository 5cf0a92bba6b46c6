"""Owns how the site shows docstrings, equations as code and arguments as a list, and records, as dataclasses."""

import re
from typing import Any

from griffe import Class, ExprCall, ExprName, Extension, Object

SHAPE = r"(?: \[[^\]]*\](?: or \[[^\]]*\])*)?(?: \w+32| int64)?"
ARGUMENT = re.compile(rf"^(\*{{0,2}}\w[\w*]*(?:, \*{{0,2}}\w+)*{SHAPE}): (.*)$")
RAISES = re.compile(r"^(Returns|Raises|Source|Sources|Needs)\b")


def markdown(text: str) -> str:
    """A docstring of this project as Markdown."""
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if any(ARGUMENT.match(line) for line in lines):
            out.append(_arguments(lines))
        elif out and all(re.search(r"<-|\s=\s|h\(x\)", line) for line in lines if not line.startswith(" ")):
            out.append("```text\n" + "\n".join(lines) + "\n```")
        else:
            out.append(_escaped("\n".join(lines)))
    return "\n\n".join(out)


def _arguments(lines: list[str]) -> str:
    """Lines `name [shape]: meaning`, with those that go on below them, as a list."""
    out: list[str] = []
    for line in lines:
        match = ARGUMENT.match(line)
        if match:
            out.append(f"- **`{match[1]}`**: {_escaped(match[2])}")
        elif line.startswith(" ") and out:
            out[-1] += f" {_escaped(line.strip())}"
        elif RAISES.match(line) or not out or not out[-1].startswith("\n"):
            out.append(f"\n{_escaped(line)}")
        else:
            out[-1] += f" {_escaped(line)}"
    return "\n".join(out)


def _escaped(text: str) -> str:
    """Text with what Markdown would take for something else escaped; `code` stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts)


class Docstrings(Extension):
    """Rewrites every docstring once it is loaded, and has records show their fields."""

    def on_class_instance(self, *, cls: Class, **given: Any) -> None:
        """A decorator `record(...)` of fastsgd/spec/record.py becomes `dataclasses.dataclass(...)`."""
        for decorator in cls.decorators:
            call = decorator.value
            if isinstance(call, ExprCall) and str(call.function) == "record":
                call.function = ExprName("dataclasses.dataclass")
                cls.labels.add("dataclass")

    def on_instance(self, *, obj: Object, **given: Any) -> None:
        """See `markdown`."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
