"""Python in the README and in docs/ runs as it is written, one file's blocks after another; links lead somewhere."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastsgd as fs

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCKS = {str(page.relative_to(ROOT)): re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
          for page in PAGES}


def relu_run():
    data = fs.Dataset(np.eye(4), np.arange(4.0))
    return fs.Run(fs.models.ReLU2(d=4, width=3), data, fs.rules.SGD(), 0.01, 50, networks=2, dtype="float64",
                  save=fs.SaveAt(linear=3))


def of_modules():
    """What docs/modules.md takes for granted: a network, its data, an optimizer."""
    import torch

    def unit(inputs, outputs):
        return torch.nn.Sequential(torch.nn.Linear(inputs, outputs), torch.nn.ReLU())

    if not torch.distributed.is_initialized():  # the page's processes are one here
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
NEEDS = {"docs/sweeps.md": ("zarr", "xarray")}
GIVEN = {"docs/metrics.md": lambda: {"fs": fs, "run": relu_run()}, "docs/modules.md": of_modules}


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks and page not in ELSEWHERE])
def test_code_runs_as_written(page, tmp_path, monkeypatch):
    for module in NEEDS.get(page, ()):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names = GIVEN.get(page, dict)()
    for number, block in enumerate(BLOCKS[page]):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


def test_the_readme_begins_with_a_run():
    assert BLOCKS["README.md"] and "fs.train(" in BLOCKS["README.md"][0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not gone
