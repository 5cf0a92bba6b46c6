"""Owns `fastsgd info`: what was built, what this machine can run, and what is missing."""

import json
from importlib import metadata, resources

from .. import __version__, portable
from ..cuda import card
from ..cuda.compiler import nvrtc
from ..cuda.driver import driver
from ..errors import BackendUnavailable
from ..files import cache_folder
from ..native import ISAS, NEEDS, cpu_flags, default_threads, native

PACKAGES = ("numpy", "torch", "triton", "matplotlib", "xarray")


def data():
    """What `text` says, for programs: versions, backends with None or why they are not available, threads."""
    try:
        cpu, isa = None, native().isa
    except BackendUnavailable as error:
        cpu, isa = str(error), None
    return {"fastsgd": __version__, "versions": {name: _version(name) for name in PACKAGES}, "isa": isa,
            "threads": default_threads(), "built": _build_info(), "unavailable": {
                "cpu": cpu, "cuda": card.why_none(), "triton": portable.why_none(), "reference": None}}


def text():
    """Plain text: versions, CPU modules, threads."""
    lines = [f"fastsgd {__version__}"]
    lines += [f"  {name} {_version(name)}" for name in PACKAGES]
    lines.append("CPU modules:")
    for isa in ISAS:
        absent = [flag for flag in NEEDS[isa] if flag not in cpu_flags()]
        here = "this machine runs it" if not absent else f"this machine lacks {', '.join(absent)}"
        lines.append(f"  x86-64-{isa}: {_build_info().get(isa, 'not built')}; {here}")
    try:
        lines.append(f"backend cpu: ready, x86-64-{native().isa}, {default_threads()} thread(s)")
    except BackendUnavailable as error:
        lines.append(f"backend cpu: not available, {error}")
    lines += _cuda()
    missing = portable.why_none()
    how = ", interpreted on the CPU" if portable.interpreted() else ""
    lines.append(f"backend triton: {f'not available, {missing}' if missing else f'ready{how}'}")
    lines.append("backend reference: ready")
    return "\n".join(lines)


def _cuda():
    """What was built for cards, what can compile the rest, and what is there to run it."""
    lines = [f"CUDA programs: {_build_info().get('cuda', 'not built')}"]
    try:
        lines.append(f"  NVRTC {nvrtc().version} compiles any other at its first use, kept in {cache_folder()}")
    except BackendUnavailable as error:
        lines.append(f"  no others: {error}")
    missing = card.why_none()
    if missing:
        return [*lines, f"backend cuda: not available, {missing}"]
    import torch

    here = [card.card(index) for index in range(torch.cuda.device_count())]
    return [*lines, f"backend cuda: ready, driver {driver().version}, "
            + ", ".join(f"{one.index}: {one.name} ({one.arch}, {one.free() / 2**30:.1f} GiB free)" for one in here)]


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _build_info():
    try:
        return json.loads(resources.files("fastsgd").joinpath("_build_info.json").read_text())
    except FileNotFoundError:
        return {}
