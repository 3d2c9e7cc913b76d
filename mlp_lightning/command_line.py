"""The command ``mlp-train`` (``python scripts/train.py``): Hydra in front, :func:`mlp_lightning.train` behind.

What is wrong with a command is found, all of it at once, before Hydra makes a folder and before torch is
imported.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlp_lightning.config import Config, conf_dir, parse_config
from mlp_lightning.config.overrides import check_overrides, explicit_keys
from mlp_lightning.errors import ConfigError, Fault, MLPLightningError
from mlp_lightning.training.run_folder import new_run_dir, newest_checkpoint

EXIT_FAILED, EXIT_WRONG_USE, EXIT_INTERRUPTED = 1, 2, 130
OUTPUT_FOLDER = Path("lightning_logs")


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """One run of a sweep: its overrides and its figures, or what went wrong."""

    overrides: list[str]
    metrics: dict[str, dict[str, float]]
    error: str = ""


def main() -> None:
    """Run the command line of this process; ends the process with its exit code."""
    arguments = get_args_parser().parse_args()
    if arguments.help or arguments.hydra_help or arguments.cfg or arguments.info or arguments.shell_completion:
        _hydra_main([])  # answers and ends
        return
    config = _checked_config(arguments.overrides, arguments.multirun, arguments.config_name, arguments.config_dir)
    outcomes: list[_Outcome] = []
    folder: Path | None = None
    try:
        extra, folder = _output_overrides(config, arguments.overrides, arguments.multirun)
        sys.argv += extra
        _hydra_main(outcomes)
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        # Before or after a training; during one, the run saves itself first.
        print("Interrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        if arguments.multirun and config.verbosity > 0:
            _print_sweep(outcomes)
        if folder is not None and not any(file.parent.name != ".hydra" for file in folder.rglob("config.yaml")):
            shutil.rmtree(folder, ignore_errors=True)  # no run ever began in it
    sys.exit(EXIT_FAILED if any(one.error for one in outcomes) else 0)


def _hydra_main(outcomes: list[_Outcome]) -> None:
    """Hand the command line to Hydra, which runs one training per job."""

    @hydra.main(version_base=None, config_path=str(conf_dir()), config_name="train")
    def task(composed: DictConfig) -> float:
        return _run(composed, outcomes)

    task()


def _checked_config(overrides: list[str], multirun: bool, config_name: str | None, config_dir: str | None) -> Config:
    """The configuration of the (first) run; ends the process when anything is wrong with it."""
    try:
        config = check_overrides(
            overrides,
            multirun=multirun,
            config_name=config_name or "train",
            config_dir=None if config_dir is None else Path(config_dir),
        )
        _check_checkpoint(config, multirun)
        _check_output(overrides, multirun)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_WRONG_USE)
    return config


def _check_checkpoint(config: Config, multirun: bool) -> None:
    wanted = config.ckpt_path
    if wanted is None:
        return
    rule = hint = ""
    if wanted in ("last", "best"):
        if multirun:
            rule = "names one run, but a sweep starts several"
            hint = "give the path of a checkpoint"
        elif _checkpoint_of_newest_run(config) is None:
            rule = f"names a checkpoint of the newest run in {OUTPUT_FOLDER / config.name}, and no run there has one"
            hint = "train one first, or give the path of a checkpoint"
    elif not Path(wanted).expanduser().is_file():
        rule, hint = "is not a file", "use last, best or the path of a .ckpt file"
    if rule:
        raise ConfigError([Fault("ckpt_path", wanted, rule, hint)])


def _checkpoint_of_newest_run(config: Config) -> Path | None:
    return newest_checkpoint(OUTPUT_FOLDER / config.name, str(config.ckpt_path))


def _check_output(overrides: list[str], multirun: bool) -> None:
    """A folder that the user names must not be that of another run: Hydra would write into it before we do."""
    key, inside = ("hydra.sweep.dir", "*/config.yaml") if multirun else ("hydra.run.dir", "config.yaml")
    for override in overrides:
        name, _, value = override.partition("=")
        if name.lstrip("+") == key and any(Path(value.strip("'\"")).glob(inside)):
            raise ConfigError([Fault(key, value, "is the folder of another run", "choose a new one")])


def _output_overrides(config: Config, overrides: list[str], multirun: bool) -> tuple[list[str], Path | None]:
    """Overrides that give Hydra a folder created for this command alone, and the folder."""
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    extra: list[str] = []
    folder: Path | None = None
    if config.ckpt_path in ("last", "best"):
        # Found once, here, where runs are put; not beside a folder that the user chose.
        extra.append(f"ckpt_path={_quoted(_checkpoint_of_newest_run(config))}")
    if key not in explicit_keys(overrides):
        folder = new_run_dir(OUTPUT_FOLDER / config.name)
        extra.append(f"{key}={_quoted(folder)}")
    if config.verbosity == 0:
        extra.append("hydra/hydra_logging=none")
    return extra, folder


def _quoted(path: Path | None) -> str:
    """A path as Hydra's grammar takes it whatever is in it."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _run(composed: DictConfig, outcomes: list[_Outcome]) -> float:
    """Train one run. Returns its validation loss (training loss without validation), for sweepers that search."""
    from mlp_lightning.training import train

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(plain, dict)
        config = parse_config({str(key): value for key, value in plain.items()}, explicit_keys(overrides))
        result = train(config, hydra_config.runtime.output_dir)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # One failing run does not end a sweep; it is told at once, and the exit code says it at the end.
        message = str(error) if isinstance(error, MLPLightningError) else _unexpected(error, hydra_config)
        job = f"Run {hydra_config.job.num} ({' '.join(overrides)}): " if hydra_config.mode == RunMode.MULTIRUN else ""
        print(f"{job}{message}", file=sys.stderr, flush=True)
        outcomes.append(_Outcome(overrides, {}, message))
        return math.nan
    if result.status == "interrupted":
        sys.exit(EXIT_INTERRUPTED)
    outcomes.append(_Outcome(overrides, result.metrics))
    return result.metrics.get("val", result.metrics["train"])["loss"]


def _unexpected(error: Exception, hydra_config: HydraConf) -> str:
    log = Path(hydra_config.runtime.output_dir) / "train.log"
    first_line = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first_line}\nThe whole story is in {log}; HYDRA_FULL_ERROR=1 shows it here."


def _print_sweep(outcomes: list[_Outcome]) -> None:
    """The figures of all runs of a sweep side by side, so that overfitting shows."""
    if not outcomes:
        return
    common = set.intersection(*(set(one.overrides) for one in outcomes)) if len(outcomes) > 1 else set()
    names = [" ".join(word for word in one.overrides if word not in common) for one in outcomes]
    width = max(map(len, names), default=0)
    finished = [one for one in outcomes if one.metrics]
    columns = [(split, name) for split, figures in finished[0].metrics.items() for name in figures] if finished else []
    titles = {"train": "training", "val": "validation", "test": "test"}
    heads = [f"{titles[split]} {name}" for split, name in columns]
    print("\nAll runs of the sweep")
    print(f"  {'':<{width}}  " + "  ".join(f"{head:>12}" for head in heads))
    for name, one in zip(names, outcomes, strict=True):
        cells = [
            f"{one.metrics[split][figure]:>{max(len(head), 12)}.6g}"
            for (split, figure), head in zip(columns, heads, strict=True)
            if one.metrics
        ]
        print(f"  {name:<{width}}  " + ("  ".join(cells) if cells else f"failed: {one.error.splitlines()[0]}"))


if __name__ == "__main__":
    main()
