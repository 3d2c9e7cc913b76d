"""Random command lines, each tried in a separate, forked process: ``python command_fuzz.py SEED COUNT``.

Prints a line of JSON for every command that did not end as a run or as one message with exit code 2. Training itself
does not take place: a command that gets there is a run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

KEYS = (
    *("seed", "task", "name", "verbosity", "report_weights", "ckpt_path", "allow_targets", "nothing", "x.y.z", ""),
    *("model.hidden_units", "model.depth", "model.activation", "model.dropout", "model.norm", "model.bias", "model"),
    *("data.name", "data.path", "data.target", "data.batch_size", "data.val_fraction", "data.columns.age.kind"),
    *("data.columns", "data.csv.delimiter", "data.cv.folds", "data.cv.fold", "data.split_seed", "data.suggested_lr"),
    *("optimizer.name", "optimizer.lr", "optimizer.betas", "optimizer.momentum", "optimizer._target_", "optimizer"),
    *("scheduler.name", "scheduler.gamma", "scheduler.T_max", "scheduler", "trainer.max_steps", "trainer.max_epochs"),
    *("trainer.threads", "trainer.precision", "trainer.gradient_clip_val", "trainer.engine", "trainer.accelerator"),
    *("callbacks.extra", "callbacks.early_stopping", "callbacks.checkpoint.monitor", "callbacks", "logger", "sweep"),
    *("sweep.name", "sweep.resume", "sweep.keys", "search", "experiment", "hydra.run.dir", "hydra.sweep.dir"),
    *("hydra.verbose", "hydra.mode", "hydra.sweeper.params.seed", "hydra.sweeper.params", "hydra.job.name"),
    *("hydra.job.chdir", "hydra.searchpath", "hydra/launcher", "hydra/sweeper", "hydra.launcher.n_jobs", "hydra"),
    *("hydra.output_subdir", "hydra.job.env_set.A", "hydra.callbacks", "hydra/job_logging", "_target_", "defaults"),
    *("hydra.job.override_dirname", "hydra.runtime.cwd", "hydra.overrides.task", "hydra.env", "hydra.help.template"),
)
VALUES = (
    *("0", "1", "-1", "2", "3.5", "1e300", "1e-320", "-0.0", "nan", "inf", "-inf", "true", "false", "null", "''", '""'),
    *("???", "xor", "iris", "table", "wide_deep", "adam", "cosine", "none", "auto", "last", "best", "relu", "text"),
    *("[1,2]", "[]", "[1,[2,[3]]]", "{}", "{a: 1}", "{a: {b: 1}}", "1,2", "1,x", "x,y", "1,2,", ",", "range(1,3)"),
    *("range(0,0)", "range(1,10,0)", "choice(1,2)", "choice()", "interval(0,1)", "glob(*)", "glob([a*],exclude=b)"),
    *("shuffle(1,2)", "sort(2,1)", "tag(a,1,2)", "str(2)", "int(x)", "float(1)", "bool(3)", "json_str(1)"),
    *("${seed}", "${nothing}", "${oc.env:HOME}", "${oc.env:NO_SUCH}", "${oc.select:a,b}", "${now:%Y}", "${"),
    *("${oc.create:{a:1}}", "${hydra:job.num}", "${model}", "${.seed}", "\\", "'", '"', "'a", "a b", "a\tb", "a\nb"),
    *("\u00e9", "\u65e5\u672c", "\U0001f600", "\u202e", "\x01", "a" * 3000, "[" * 300, "{a:" * 50, "9" * 400, "0x10"),
    *(
        "/dev/null",
        "/proc/x/y",
        "../up",
        "/",
        ".",
        "..",
        "~",
        "a/b",
        "a:b",
        "a=b",
        "==",
        "@",
        "#",
        "%s",
        "{0}",
        "$(ls)",
    ),
    *("MULTIRUN", "RUN", "vectorized", "basic", "optuna", "grid", "os.system", "builtins.eval", "torch.optim.SGD"),
)
SIGNS = ("", "", "", "", "", "", "+", "++", "~", "+~", "-", "~~")
PACKAGES = ("", "", "", "", "", "", "", "@x", "@a:b", "@_global_", "@:", "@")
OPTIONS = (
    *("-m", "-m", "-m", "--multirun", "--run", "-r", "-h", "--help", "--hydra-help", "--version", "--resolve"),
    *("--cfg=job", "--cfg=hydra", "-c", "--info=all", "--info=defaults", "--info=no", "--package=x", "-p", "--bad"),
    *("--config-name=train", "--config-name=no", "--config-name=../x", "--config-dir=.", "--config-dir=no", "-cd"),
    *("--config-path=.", "--shell-completion", "-sc", "--experimental-rerun=x", "--", "-1", "-x=1"),
)
# What a command needs so that it can be a run.
SMALL = ["trainer.max_steps=2", "verbosity=0"]


def command(random_numbers: random.Random) -> list[str]:
    """Words of a command line."""
    draw = random_numbers.choice
    words = [
        draw(SIGNS) + draw(KEYS) + draw(PACKAGES) + draw(("=", "=", "=", "=", "=", "", "==")) + draw(VALUES)
        for _ in range(random_numbers.randint(0, 3))
    ]
    words += [draw(OPTIONS) for _ in range(draw((0, 0, 0, 1, 1, 2)))]
    words += SMALL if random_numbers.random() < 0.5 else []
    random_numbers.shuffle(words)
    return [word.replace("\0", "") for word in words]


def tried(script: str, words: list[str], folder: Path) -> str:
    """What is wrong with how a command ended; empty if nothing is."""
    output = folder.with_suffix(".out")
    child = os.fork()
    if child == 0:
        _be_the_command(script, words, folder, output)
    # A command that hangs is ended by the alarm that it set.
    _, status = os.waitpid(child, 0)
    text = output.read_text(encoding="utf-8", errors="replace")
    left = sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))
    if os.WIFSIGNALED(status):
        return f"ended by signal {os.WTERMSIG(status)}: {text[-300:]}"
    code = os.WEXITSTATUS(status)
    if "Traceback" in text:
        return f"exit code {code}, traceback: {text[-1500:]}"
    if code not in (0, 2):
        return f"exit code {code}: {text[-300:]}"
    if code == 2 and (not text.strip() or left):
        return f"exit code 2, message {text[-300:]!r}, left {left}"
    return ""


def _be_the_command(script: str, words: list[str], folder: Path, output: Path) -> None:
    """Run the command in this process, which ends here."""
    from importlib import import_module

    signal.alarm(30)
    os.chdir(folder)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdin.close()
    code: object = 70
    try:
        sys.argv = [f"{script}.py", *words]
        module, function = COMMANDS[script]
        getattr(import_module(module), function)()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(int(str(code)))


COMMANDS = {
    "train": ("mlp_lightning.commands.train", "main"),
    "evaluate": ("mlp_lightning.commands.inference", "evaluate"),
    "predict": ("mlp_lightning.commands.inference", "predict"),
    "export": ("mlp_lightning.commands.inference", "export"),
    "leaderboard": ("mlp_lightning.sweeps.leaderboard.command", "main"),
}


def no_training() -> None:
    """Let commands end where training would begin. The imports are made here once, for all of them."""
    import mlp_lightning.ensembles.best as best
    import mlp_lightning.ensembles.cross_validation as cross_validation
    import mlp_lightning.ensembles.ensemble as ensemble
    import mlp_lightning.runs as runs
    from mlp_lightning.sweeps.sweep import Sweep

    def end(*ignored: object, **also: object) -> None:
        sys.stdout.flush()
        os._exit(0)

    runs.train = end  # type: ignore[assignment]  # never returns
    cross_validation.cross_validate = end  # type: ignore[assignment]
    best.train_best = end  # type: ignore[assignment]
    ensemble.train_ensemble = end  # type: ignore[assignment]
    Sweep.run_jobs = end  # type: ignore[assignment]


def main(seed: int, count: int) -> None:
    """Try ``count`` commands."""
    no_training()
    for number in range(count):
        random_numbers = random.Random(f"{seed} {number}")
        script = random_numbers.choice(["train"] * 6 + list(COMMANDS))
        words = command(random_numbers)
        folder = Path(tempfile.mkdtemp())
        try:
            wrong = tried(script, words, folder)
        finally:
            shutil.rmtree(folder)
            folder.with_suffix(".out").unlink(missing_ok=True)
        if wrong:
            print(json.dumps({"number": number, "command": [script, *words], "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
