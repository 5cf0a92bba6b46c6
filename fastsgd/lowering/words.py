"""Owns the collecting of words that cross languages, each written once: `make contract` makes files of them.

A word belongs to the class that means it: a hyper-parameter to its rule, a loss to its record, a form to its family.
Here they are collected and numbered. contract.py beside this file, which needs no rule and no family to be imported,
csrc/core/contract.h, csrc/core/models/forms.h and kernels/contract.py are written from them; a test holds these fresh.
"""

import json
from pathlib import Path
from textwrap import wrap

from .. import models, rules
from ..models.activations import ACTIVATIONS
from ..rules.base import PERTURBS
from ..spec import draws, loss, noise, problem

ROOT = Path(__file__).resolve().parents[2]
ALIVE, UNSETTLED = -1, -2  # of `lost`, where it is no step


def _words(what):
    """Words that the rules have under a name, in the order of the shelf, each once."""
    kinds = (getattr(rules, name) for name in rules.KINDS)
    named = (word for rule in kinds for kind in reversed(rule.__mro__) for word in vars(kind).get(what, ()))
    return tuple(dict.fromkeys(named))


HYPERS = _words("hypers")
BUFFERS = _words("carries")
FLAGS = _words("flags")
LOSSES = (*(kind.name for kind in loss.KINDS), "traced")
NOISES = noise.KINDS
FORMS = tuple(getattr(models, name) for name in models.FORMS)
WORDS = {"FORM": (*(form.name for form in FORMS), "traced"), "LOSS": LOSSES, "ACTIVATION": tuple(ACTIVATIONS),
         "NOISE": NOISES, "INPUT": problem.INPUTS, "PERTURB": PERTURBS, "HYPER": HYPERS, "FLAG": FLAGS}


def _upper(words):
    return ", ".join(word.upper() for word in words)


def _line(text):
    """A line of the preprocessor, broken where it would be too long."""
    return " \\\n".join(wrap(text, 117, subsequent_indent="  ", break_long_words=False)) + "\n"


def _written(mark):
    return f"{mark} Written by `make contract`; fastsgd/lowering/words.py says whose the words are.\n"


def header():
    """Text of csrc/core/contract.h."""
    out = ["// Owns the words that cross languages: members of enums, and what Python calls them.\n", _written("//"),
           "#pragma once\n\n// clang-format off\n"]
    for kind, words in WORDS.items():
        quoted = ", ".join(f'"{word}"' for word in words)
        out += [_line(f"#define FS_{kind}_WORDS {_upper(words)}"), _line(f"#define FS_{kind}_NAMES {quoted}")]
    streams = ", ".join(f"{word.upper()} = {number}" for word, number in draws.STREAMS.items())
    out.append(f"#define FS_STREAMS {streams}\n#define FS_UNSETTLED {UNSETTLED}\n")
    return "".join(out) + "// clang-format on\n"


def forms_header():
    """Text of csrc/core/models/forms.h."""
    made = ["// Owns the list of forms: headers, and X(kind, struct made of its whole numbers n).\n", _written("//"),
            "#pragma once\n"]
    made += [f'#include "{name}.h"\n' for name in sorted(form.name for form in FORMS)]
    made.append("\n// clang-format off\n#define FS_EACH_FORM(X)")
    for form in (form for form in FORMS if form.fields):
        fields = ", ".join(f"n[{k}]" for k in range(len(form.fields)))
        made.append(f" \\\n  X({form.name.upper()}, ({form.struct}<Tm>{{{fields}}}))")
    most = max(len(form.fields) for form in FORMS)
    return "".join(made) + f"\n// clang-format on\n\nnamespace fs {{\nconstexpr int MOST_NUMBERS = {most};\n}}\n"


def triton():
    """Text of kernels/contract.py."""
    lists = {"HYPERS and the rule's flags after them": (*HYPERS, *FLAGS), "activations": tuple(ACTIVATIONS)}
    out = ['"""Owns the words that cross languages, as places in tuples.\n\n',
           _written("").lstrip(), '"""\n\nimport triton.language as tl\n']
    for what, words in lists.items():
        out.append(f"\n# {what}\n" + "".join(f"{word.upper()} = tl.constexpr({k})\n" for k, word in enumerate(words)))
    out.append("\n# streams of draws, and of `lost` what is no step\n" + "".join(
        f"{word.upper()} = tl.constexpr({number})\n" for word, number in draws.STREAMS.items()))
    return "".join(out) + f"UNSETTLED = tl.constexpr({UNSETTLED})\n"


def python():
    """Text of fastsgd/lowering/contract.py."""
    lists = {"HYPERS": HYPERS, "BUFFERS": BUFFERS, "FLAGS": FLAGS, "PERTURBS": PERTURBS, "NOISES": NOISES}
    out = ['"""Owns the words that cross languages, in the order of their numbers.\n\n',
           _written("").lstrip(), f'"""\n\nALIVE, UNSETTLED = {ALIVE}, {UNSETTLED}  # of `lost`, where it is no step\n']
    for name, words in lists.items():
        text = f"{name} = ({', '.join(json.dumps(word) for word in words)})"
        out.append("\n".join(wrap(text, 119, subsequent_indent=" " * (len(name) + 4))) + "\n")
    return "".join(out)


FILES = {"csrc/core/contract.h": header, "csrc/core/models/forms.h": forms_header, "kernels/contract.py": triton,
         "fastsgd/lowering/contract.py": python}


def write():
    """Write the files that the kernels read."""
    for name, text in FILES.items():
        (ROOT / name).write_text(text())
