"""Runs the scripts of a report outside of a page."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from support.commands import ROOT

TEMPLATES = ROOT / "mlp_lightning" / "inference" / "report" / "templates"


def run_scripts(names: list[str], body: str, data: Any) -> Any:
    """What the body of a function of ``data`` returns after these scripts, as Node.js has it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js (node) to run the scripts of a page")
    scripts = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)
    code = f"{scripts}\nconst given = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
    code += f"process.stdout.write(JSON.stringify((function (data) {{ {body} }})(given)));"
    done = subprocess.run([node, "-e", code], input=json.dumps(data), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
