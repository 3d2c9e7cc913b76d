"""The commands of docs/own_parts.md."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from support.commands import ROOT, environment

PAGE = (ROOT / "docs" / "own_parts.md").read_text(encoding="utf-8")


def command(script: str, *arguments: str, folder: Path, finds_package: bool = True) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "examples")] if finds_package else []
    paths += [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one and "examples" not in one]
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        cwd=folder,
        env={**environment(), "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def of_page(heading: str) -> list[str]:
    """The arguments of the first command below a heading of the page, as a shell would split them."""
    part = PAGE[PAGE.index(f"## {heading}\n") :]
    line = part[part.index("python scripts/") :].split("\n\n")[0].replace("\\\n", " ")
    return shlex.split(line)[2:]
