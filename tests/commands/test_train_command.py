"""The real command: its output, its files and its exit codes."""

from __future__ import annotations

import io
import json
import re
import signal
import time

import pytest
import yaml
from rich.console import Console
from support.commands import ROOT, only_run, run_forked, start, train, train_forked
from support.sweep_folders import assert_same_tables

import mlp_lightning

pytestmark = pytest.mark.slow


def test_sweep_over_hidden_units(tmp_path) -> None:
    done = train("-m", "data=iris", "model.hidden_units=5,100,1000", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    sweep = only_run(tmp_path, "iris")
    assert {one.name for one in sweep.iterdir() if one.is_dir()} == {"0", "1", "2"}
    head, *rows = done.stdout[done.stdout.index("Leaderboard of iris: best validation loss first") :].splitlines()[1:5]
    assert re.split(r"\s{2,}", head.strip()) == [
        "model.hidden_units",
        "run",
        "training loss",
        "validation loss",
        "training accuracy",
        "validation accuracy",
    ]
    losses = {}
    for row in rows:
        _, units, number, *metrics = row.split()
        result = json.loads((sweep / number / "result.json").read_text())
        config = yaml.safe_load((sweep / number / "config.yaml").read_text())
        assert config["model"]["hidden_units"] == int(units) == (5, 100, 1000)[int(number)]
        expected = [result["metrics"][split][one] for one in ("loss", "accuracy") for split in ("train", "val")]
        assert [float(metric) for metric in metrics] == pytest.approx(expected, rel=1e-5)
        losses[int(units)] = result["metrics"]["train"]["loss"]
    # The published lesson: wider networks end with a lower training loss.
    assert losses[1000] < losses[100] < losses[5]


def test_published_sweep_needs_no_further_words(tmp_path) -> None:
    done = train("experiment=iris_hidden_units", "trainer.max_epochs=3", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    sweep = only_run(tmp_path, "iris_hidden_units")
    widths = {
        one.parent.name: yaml.safe_load(one.read_text())["model"]["hidden_units"] for one in sweep.glob("*/config.yaml")
    }
    assert widths == {"0": 5, "1": 100, "2": 1000}
    repeat = done.stdout.splitlines()[-3].split()[2:]
    assert repeat[0] == "hydra.mode=RUN"
    alone = train_forked(*repeat, "name=alone", folder=tmp_path)
    assert alone.returncode == 0
    best = sweep / {"5": "0", "100": "1", "1000": "2"}[repeat[1].partition("=")[2]]
    assert_same_tables(best / "metrics.csv", only_run(tmp_path, "alone") / "metrics.csv")


def test_own_widths_replace_those_of_the_published_sweep(tmp_path) -> None:
    words = ["experiment=iris_hidden_units", "model.hidden_units=4,6", "trainer.max_epochs=2", "verbosity=0"]
    assert train_forked(*words, folder=tmp_path).returncode == 0
    files = only_run(tmp_path, "iris_hidden_units").glob("*/config.yaml")
    assert sorted(yaml.safe_load(one.read_text())["model"]["hidden_units"] for one in files) == [4, 6]


def test_runs_of_a_sweep_are_those_of_single_commands(tmp_path) -> None:
    assert train_forked("-m", "data=xor", "seed=3,4", "trainer.max_steps=300", folder=tmp_path).returncode == 0
    sweep = only_run(tmp_path, "xor")
    done = train_forked("data=xor", "seed=4", "name=alone", "trainer.max_steps=300", folder=tmp_path)
    assert done.returncode == 0
    alone = only_run(tmp_path, "alone")
    assert_same_tables(sweep / "1" / "metrics.csv", alone / "metrics.csv")


def test_failing_run_does_not_end_the_sweep(tmp_path) -> None:
    words = ["-m", "hydra/launcher=basic", "data=iris", "optimizer.lr=1e30,0.1", "trainer.max_epochs=3"]
    done = train_forked(*words, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Run 0 (data=iris optimizer.lr=1e+30 trainer.max_epochs=3): The training loss became")
    assert "Traceback" not in done.stderr
    assert re.search(r"run 0 \(optimizer\.lr=1e\+30\) failed: .*The training loss became nan", done.stdout)
    sweep = only_run(tmp_path, "iris")
    statuses = [json.loads((sweep / str(number) / "result.json").read_text())["status"] for number in (0, 1)]
    assert statuses == ["failed", "finished"]


def test_failed_run_is_one_clear_message(tmp_path) -> None:
    done = train_forked("data=xor", "optimizer.lr=0", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("No parameter changed in steps 0 to ")
    assert done.stderr.count("\n") == 1


def test_plain_lines_without_a_terminal(tmp_path) -> None:
    done = train("data=iris", "trainer.max_epochs=40", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    run = only_run(tmp_path, "iris")
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "150 rows; predicts species (multiclass: setosa 50, versicolor 50, virginica 50)",
        "numeric: sepal_length_cm, sepal_width_cm, petal_length_cm, petal_width_cm",
    ]
    assert lines[2] == (
        "Training 4-100-3 relu (803 parameters) on iris (90 train, 30 val, 30 test rows) with SGD, learning rate 0.1,"
        " 40 steps"
    )
    assert len([line for line in lines if line.startswith("step")]) == 20
    shown = run.relative_to(tmp_path)
    assert lines[-2:] == [f"Run folder:  {shown}", f"TensorBoard: tensorboard --logdir {shown}"]
    table = next(number for number, line in enumerate(lines) if line.startswith("Final metrics"))
    assert lines[table + 1].split() == ["loss", "baseline", "accuracy", "baseline"]
    assert [line.split()[0] for line in lines[table + 2 : table + 5]] == ["training", "validation", "test"]
    assert re.fullmatch(r"40 steps \(40 epochs\) in \d+\.\d s on cpu", lines[table + 5])
    assert lines[table + 6] == (
        "Baseline: always 'setosa' (33.3 % of the training rows); for the loss, the shares of the classes"
    )
    # Everything that was printed can be read again later.
    log = (run / "train.log").read_text()
    assert all(line in log for line in lines if line)


def test_bar_in_a_terminal(tmp_path, compose_config) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    config = compose_config("data=iris", "trainer.max_epochs=30", "verbosity=1")
    mlp_lightning.train(config, tmp_path / "run", console)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"30/30 steps .* \d+ steps/s loss 0\.\d+  accuracy 0\.\d+", text)
    assert not re.search(r"^step ", text, re.MULTILINE)
    assert re.search(r"validation +│ 0\.\d+ +│ 1\.0986\d* +│ 0\.\d+ +│ 0\.333333", text)


@pytest.mark.parametrize("verbosity", [0, 2])
def test_one_option_for_quiet_and_loud(verbosity, tmp_path) -> None:
    done = train_forked("data=xor", "trainer.max_steps=200", f"verbosity={verbosity}", folder=tmp_path)
    assert done.returncode == 0
    if verbosity == 0:
        assert done.stdout == done.stderr == ""
    else:
        assert "GPU available" in done.stdout + done.stderr


def test_folder_of_another_run_is_never_written_to(tmp_path) -> None:
    assert train_forked("data=xor", "trainer.max_steps=3", "hydra.run.dir=mine", folder=tmp_path).returncode == 0
    before = {file: file.read_bytes() for file in (tmp_path / "mine").rglob("*") if file.is_file()}
    again = train_forked("data=xor", "trainer.max_steps=4", "hydra.run.dir=mine", folder=tmp_path)
    assert again.returncode == 2
    assert "hydra.run.dir = 'mine' is the folder of another run; choose a new one" in again.stderr
    assert {file: file.read_bytes() for file in (tmp_path / "mine").rglob("*") if file.is_file()} == before


def test_closed_output_does_not_end_the_training(tmp_path) -> None:
    """As in `… | head -2`."""
    process = start("data=xor", "trainer.max_steps=3000", folder=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("4 rows; predicts xor")
    process.stdout.close()
    assert process.wait(60) == 0
    result = json.loads((only_run(tmp_path, "xor") / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("finished", 3000)


@pytest.mark.posix
def test_ctrl_c_before_the_training_leaves_nothing(tmp_path) -> None:
    process = start("data=xor", folder=tmp_path)
    while not any(tmp_path.glob("lightning_logs/xor/*/.hydra")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert printed == "Interrupted.\n"
    assert list(tmp_path.iterdir()) == []


# Ctrl-C comes while a module is imported, inside of an "except" that catches everything.
SWALLOWING = """
import os, runpy, signal, sys, time

class Swallowing:
    def find_spec(self, name, path, target=None):
        if name == os.environ["WITHIN"]:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except BaseException:
                print("swallowed", flush=True)

sys.meta_path.insert(0, Swallowing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.posix
@pytest.mark.parametrize(
    ("command", "within"),
    [
        (["train.py", "data=xor"], "mlp_lightning.runs.fit"),
        (["train.py", "data=sklearn", "data.name=iris", "data.cv.folds=3"], "mlp_lightning.runs.fit"),
        (["train.py", "-m", "data=xor", "seed=0,1"], "mlp_lightning.runs.training"),
        (["evaluate.py", "ckpt_path=model.ckpt"], "mlp_lightning.inference.evaluation.evaluate"),
        (["predict.py", "ckpt_path=model.ckpt", "data.path=t.csv", "output=p.csv"], "mlp_lightning.inference.predict"),
        (["export.py", "ckpt_path=model.ckpt"], "mlp_lightning.inference.export.formats"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_an_interrupt_that_a_library_swallows_still_ends_the_command(command, within, tmp_path) -> None:
    (tmp_path / "model.ckpt").touch()
    (tmp_path / "t.csv").touch()
    script = tmp_path / "swallowing.py"
    script.write_text(SWALLOWING, encoding="utf-8")
    arguments = [str(ROOT / "scripts" / command[0]), *command[1:]]
    done = run_forked(str(script), *arguments, folder=tmp_path, WITHIN=within)
    assert "swallowed\n" in done.stdout
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")
    assert not list(tmp_path.rglob("result.json"))
    assert not (tmp_path / "p.csv").exists()


def test_unexpected_error_is_one_message(tmp_path) -> None:
    done = train_forked("data=xor", "model.hidden_units=10000000", "model.depth=3", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    log = only_run(tmp_path, "xor").relative_to(tmp_path) / "train.log"
    assert done.stderr.startswith("RuntimeError: ")
    assert f"{log}; HYDRA_FULL_ERROR=1 shows it here." in done.stderr
    assert "Traceback" in (tmp_path / log).read_text()
