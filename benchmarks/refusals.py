"""Memory and seconds until a command refuses a file that would take all memory: ``python benchmarks/refusals.py``.

Files are made in a temporary folder, and every command gets one of them under a limit of its address space. Memory is
the most resident memory of the process; that of a command that refuses a file that is not there comes first, for
comparison. Needs the repository (the hostile checkpoints and exports are those of ``tests/support``), on Linux.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEBI = 1 << 20
TABLE = "data=table data.target=a data.path="
CHECKPOINTS = [
    *("shared lists in the configuration", "shared lists as the seed", "a width that takes 30 GB"),
    *("a billion layers", "a hundred thousand classes", "deflated", "overlapping members"),
]
EXPORTS = ["a million classes", "a million brackets", "units without bound"]
# Each runs in a separate process, so that this one stays small.
MAKE_CHECKPOINTS = """
import sys, pathlib, json
from support import hostile_checkpoints, hostile_exports
from mlp_lightning.inference.export.formats import export_model
folder = pathlib.Path(sys.argv[1])
genuine = next(folder.glob("lightning_logs/*/*/checkpoints/last.ckpt"))
for number, name in enumerate(json.loads(sys.argv[2])):
    hostile_checkpoints.write(name, genuine, folder / f"{number}.ckpt", folder / "ran")
export_model(genuine, "safetensors", folder / "good.safetensors")
(folder / "exports").mkdir()
made = hostile_exports.hostile_exports(folder / "good.safetensors", folder / "exports")
print(json.dumps({name: str(path) for name, path in made.items()}))
"""
LOAD = """
import sys
from mlp_lightning.errors import MLPLightningError
from mlp_lightning.inference.export.safetensors import load_exported
try:
    load_exported(sys.argv[1])
except MLPLightningError as error:
    print(error)
    sys.exit(2)
"""
MAKE_COLUMNS = """
import sys, numpy, pyarrow, pyarrow.parquet, pyarrow.feather
codes = pyarrow.DictionaryArray.from_arrays(numpy.zeros(2000, numpy.int32), pyarrow.array(["x" * (8 << 20)]))
table = pyarrow.table({"a": codes, "y": numpy.arange(2000)})
pyarrow.parquet.write_table(table, sys.argv[1] + "/texts.parquet", compression="zstd", store_schema=False)
pyarrow.feather.write_feather(table, sys.argv[1] + "/texts.feather", compression="zstd")
"""


def write_tables(folder: Path) -> dict[str, str]:
    """Hostile tables by what they are, as words of the training command."""
    gib = gzip.compress(b"x" * (16 * MEBI)) * 64
    contents = {
        "line.csv.gz": gzip.compress(b"a,b\n") + gib * 4,
        "header.csv.gz": gib * 4,
        "zeros.csv.gz": gzip.compress(bytes(16 * MEBI)) * 256,
        "rows.csv.gz": gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n" * (4 * MEBI)) * 256,
        "zeros.csv": bytes(64 * MEBI),
        "brackets.json": b'{"a": ' + b"[" * MEBI + b"]" * MEBI + b"}\n",
        "names.jsonl": b"".join(b'{"k%d": 1}\n' % one for one in range(100_000)),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "device.csv").symlink_to("/dev/zero")
    subprocess.run([sys.executable, "-c", MAKE_COLUMNS, str(folder)], check=True)
    names = [*contents, "device.csv", "texts.parquet", "texts.feather"]
    return {name: f"scripts/train.py {TABLE}{name}" for name in names}


def measured(words: list[str], folder: Path, limit: int, seconds: float) -> dict[str, object]:
    """How a command ends."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    started = time.monotonic()
    with (folder / "said").open("w+") as said:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "1000"}
        child = subprocess.Popen(words, cwd=folder, stdout=said, stderr=said, env=environment, preexec_fn=limited)
        usage, status = None, 0
        while usage is None:
            done, status, found = os.wait4(child.pid, os.WNOHANG)
            if done:
                usage = found
            elif time.monotonic() - started > seconds:
                child.kill()
            else:
                time.sleep(0.05)
        said.seek(0)
        text = said.read()
    child.returncode = os.waitstatus_to_exitcode(status)
    return {
        "code": child.returncode,
        "MB": round(usage.ru_maxrss / 1024),
        "processor_s": round(usage.ru_utime + usage.ru_stime, 1),
        "traceback": "Traceback" in text,
        "said": text.strip()[-200:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-gb", type=float, default=8, help="limit of the address space of each command")
    parser.add_argument("--seconds", type=float, default=300, help="after which a command is ended")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        words = [str(ROOT / "scripts" / "train.py"), "data=iris", "trainer.max_steps=9", "optimizer=adam"]
        small = ["model.hidden_units=3", "model.depth=1", "verbosity=0"]
        subprocess.run([sys.executable, *words, *small], cwd=folder, env=environment, check=True)
        made = [sys.executable, "-c", MAKE_CHECKPOINTS, str(folder), json.dumps(CHECKPOINTS)]
        done = subprocess.run(made, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        exports = json.loads(done.stdout.splitlines()[-1])
        cases = {"nothing": f"scripts/train.py {TABLE}nothing.csv", **write_tables(folder)}
        for number, one in enumerate(CHECKPOINTS):
            cases[f"checkpoint: {one}"] = (
                f"scripts/predict.py ckpt_path={number}.ckpt data.path=line.csv.gz output=p.csv"
            )
        commands = {case: [str(ROOT / line.split()[0]), *line.split()[1:]] for case, line in cases.items()}
        commands |= {f"export: {one}": ["-c", LOAD, exports[one]] for one in EXPORTS}
        limit = int(arguments.memory_gb * 2**30)
        for case, command in commands.items():
            found = measured([sys.executable, *command], folder, limit, arguments.seconds)
            print(json.dumps({"case": case, **found}), flush=True)


if __name__ == "__main__":
    main()
