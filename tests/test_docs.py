"""Every block of code in the README and in docs/: Python runs as it is written, one page's blocks after another, TOML
describes a run or a sweep, commands are ones that there are. Links lead somewhere, the API's pages have every name."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.main import get_command

import fastsgd as fs
from fastsgd import cli, config

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
INSIDE = {"ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"}  # which are for those who change the code
LANGUAGES = ("python", "toml", "bash", "text")


def blocks(page):
    """[(language, text)] of the fenced blocks of a page."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.M | re.S)


BLOCKS = {str(page.relative_to(ROOT)): blocks(page) for page in PAGES}


def written_in(language):
    return [page for page, found in BLOCKS.items() if any(word == language for word, _ in found)]


def texts(page, language):
    return [text for word, text in BLOCKS[page] if word == language]


def relu_run():
    data = fs.Dataset(np.eye(4), np.arange(4.0))
    return fs.Run(fs.models.ReLU2(d=4, width=3), data, fs.rules.SGD(), 0.01, 50, networks=2, dtype="float64",
                  save=fs.SaveAt(linear=3))


def of_modules():
    """What docs/modules.md takes for granted: a network, its data, an optimizer."""
    import torch

    def unit(inputs, outputs):
        return torch.nn.Sequential(torch.nn.Linear(inputs, outputs), torch.nn.ReLU())

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.manual_seed(0)
    model, sizes = torch.nn.Sequential(), [4, 60, 60, 60, 60, 4]
    for place, name in enumerate(("layer1", "layer2", "layer3", "layer4", "avgpool")):
        model.add_module(name, unit(*sizes[place:place + 2]))
    batches = [(torch.randn(8, 4), torch.randn(8, 4)) for _ in range(3)]
    return {"torch": torch, "model": model, "loader": batches, "batches": batches, "epochs": 10,
            "loss": 0.5, "images": batches[0][0],
            "optimizer": torch.optim.SGD(model.parameters(), 0.1), "lightning": SimpleNamespace(Callback=object)}


ELSEWHERE = {"docs/neighbours.md"}  # tests/test_neighbours.py makes what it makes, which takes seconds each
STORES = ("zarr", "xarray")
NEEDS = {"docs/sweeps.md": STORES, "docs/tutorials/phase.md": (*STORES, "matplotlib"), "docs/api/sweeps.md": STORES,
         "docs/tutorials/machines.md": STORES, "docs/guides/calling.md": (*STORES, "jax", "sklearn"),
         "docs/index.md": ("matplotlib",)}
APART = {"docs/guides/calling.md"}  # jax has threads, which the tests that fork do not want beside them
GIVEN = {"docs/metrics.md": lambda: {"fs": fs, "run": relu_run()}, "docs/modules.md": of_modules}


@pytest.fixture
def no_process_group_remains():
    """docs/modules.md has one: later tests, and their forks, are not to inherit it."""
    yield
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("page", [page for page in written_in("python") if page not in ELSEWHERE])
def test_code_runs_as_written(page, tmp_path, monkeypatch, optimized, no_process_group_remains):
    for module in NEEDS.get(page, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    if page in APART:
        done = subprocess.run([sys.executable, "-c", "\n".join(texts(page, "python"))], cwd=tmp_path,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = GIVEN.get(page, dict)()
    for number, block in enumerate(texts(page, "python")):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", written_in("toml"))
def test_files_describe_what_they_say(page, tmp_path):
    for text in texts(page, "toml"):
        path = tmp_path / "it.toml"
        path.write_text(text)
        if "[sweep]" in text:
            assert config.read_sweep(path).networks
        else:
            assert fs.plan(config.read(path)).N


@pytest.mark.parametrize("page", written_in("bash"))
def test_commands_are_ones_that_there_are(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in "\n".join(texts(page, "bash")).splitlines():
        words = shlex.split(line, comments=True)
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words[:1] == ["fastsgd"]:
            parsed(words[1:])
        elif words[:1] == ["make"]:
            assert {word for word in words[1:] if "=" not in word} <= targets, line
        else:
            assert not words or words[0] in ("pip", "rsync"), f"{page}: {line!r} is no command that is known"


def parsed(words):
    """Let the program read its arguments, and do nothing. Raises what it would raise for ones that there are not."""
    command, context = get_command(cli.app), None
    name = "fastsgd"
    while True:
        context = command.make_context(name, list(words), parent=context, resilient_parsing="--help" in words)
        if not hasattr(command, "resolve_command") or "--help" in words:
            return
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("page", [page for page in BLOCKS if page not in INSIDE])
def test_blocks_say_what_they_are_written_in(page):
    assert {word for word, _ in BLOCKS[page]} <= set(LANGUAGES)


def test_the_readme_begins_with_a_run():
    assert "fs.train(" in texts("README.md", "python")[0]


def test_a_phase_diagram_takes_thirty_lines():
    code = "\n".join(texts("docs/tutorials/phase.md", "python")[:3])
    assert len([line for line in code.splitlines() if line.strip()]) <= 30 and "reshape" not in code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if "://" in link:
            continue
        target = page.parent / link if link else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}#{anchor} leads nowhere"


def anchors(page):
    """Names of a page's headings, as GitHub and the site form them."""
    return {re.sub(r"[^\w\- ]", "", line.strip("# ").lower()).replace(" ", "-")
            for line in page.read_text().splitlines() if line.startswith("#")}


SHELVES = {"runs": (fs, "fs"), "models": (fs.models, "fs.models"), "rules": (fs.rules, "fs.rules"),
           "metrics": (fs.metrics, "M"), "data": (fs.data, "fs.data"), "sweeps": (fs.sweep, "fs.sweep"),
           "functional": (fs.functional, "F"), "modules": (fs.modules, "fs.modules")}


@pytest.mark.parametrize("page", SHELVES)
def test_the_api_has_every_name_and_an_example_of_it(page):
    shelf, short = SHELVES[page]
    text, code = (ROOT / "docs" / "api" / f"{page}.md").read_text(), texts(f"docs/api/{page}.md", "python")[0]
    shelves = {name for name in fs.__all__ if name[0].islower() and name not in ("plan", "train", "concat", "resume")}
    elsewhere = {"__version__", "Dataset", "Sweep", "Keep", *shelves} if shelf is fs else {"reduce"}
    for name in set(shelf.__all__) - elsewhere:
        home = getattr(shelf, name)
        assert f"::: {home.__module__}.{home.__name__}\n" in f"{text}\n", f"{name} is not on the page"
        assert f"{short}.{name}" in code, f"{name} is not in the example"


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        if page.parent.name != "decisions":  # which docs/site/hooks.py adds
            assert str(page.relative_to(ROOT / "docs")) in menu


def test_a_site_is_built_without_a_warning(tmp_path):
    """Where it can be: `make docs` is the same, and nothing of it needs a network."""
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module)
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "-q", "-d", tmp_path], cwd=ROOT, text=True,
                          capture_output=True, env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1",
                                                     "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "api" / "runs.html").exists()
