"""Owns what the site does to pages: those at the root of the checkout join it, and links to them lead there."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
JOINED = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "ARCHITECTURE.md": "architecture.md",
          "bench/README.md": "protocol.md", "README.md": "index.md"}  # file of the checkout: page of the site
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Put the decisions at the end of the menu, as many as there are."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    config.nav[-1]["Inside"].append({"Decisions": [f"decisions/{page.name}" for page in pages]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside of docs/."""
    for source, page in JOINED.items():
        if page != "index.md":
            files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links between files of the checkout lead to the pages that they are here."""
    pages = {ROOT / source: target for source, target in JOINED.items()}
    here = next((path for path, target in pages.items() if target == page.file.src_uri and target != "index.md"),
                ROOT / "docs" / page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        if "://" in link:
            return match[0]
        target = (here.parent / link).resolve()
        if target in pages:
            inside = pages[target]
        elif target.is_relative_to(ROOT / "docs"):
            inside = str(target.relative_to(ROOT / "docs"))
        else:  # a file of the checkout that is no page
            return text
        return f"[{text}]({'../' * page.file.src_uri.count('/')}{inside}{anchor})"

    return LINK.sub(led, markdown)
