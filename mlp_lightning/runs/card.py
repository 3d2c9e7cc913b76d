"""``model_card.md``: what a model was trained on, how it was measured, its limits, and how to use it.

It has what the run read, was asked for and measured, and nothing else. Plain Python writes it: the import of jinja2
and the compilation of a template take more than a hundred times as long as the card.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_lightning.config import Config, OwnDataConfig
from mlp_lightning.config.free_names import path_option
from mlp_lightning.data import TabularDataModule
from mlp_lightning.runs.console import SPLIT_NAMES, short_path
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.member import Member
from mlp_lightning.runs.report import network_name
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import NOT_IN_HASH, RunFolder, versions

_MOST_COLUMNS, _LONGEST = 200, 1_000
# Of fewer rows an accuracy of 0.9 has a standard error above 0.03.
_FEW = 100
# The user name, the password and the query of an address may be secrets.
_SECRETS = re.compile(r"://(?:[^/\s@]*@)?([^\s?#]*)(?:[?#]\S*)?")
# Every character that begins something in CommonMark or GitHub's tables and links, where it does not begin a line.
_MARKUP = re.compile(r"([\\`*_#\[\]<>&|~$@]|:(?=//)|(?<=\bwww)\.)", re.IGNORECASE)


class Measured(NamedTuple):
    """The metrics of some rows.

    Attributes:
        rows: which.
        metrics: by name; texts.
        baseline: the same of predictions that do not look at the features.
    """

    rows: str
    metrics: Mapping[str, str]
    baseline: Mapping[str, str]


class Facts(NamedTuple):
    """What a card says besides what the rows and the configuration say.

    Attributes:
        model: what it is, in a line.
        measured: on which rows.
        limits: of these metrics, a line each.
        weights: ``best`` or ``last``: the name of the checkpoint.
    """

    model: str
    measured: Sequence[Measured]
    limits: Sequence[str]
    weights: str


def has_card(config: Config) -> bool:
    """Whether runs of these data have a card: those of tables, and of a data set of the user's own."""
    return isinstance(config.data, OwnDataConfig) or config.data.name in ("table", "frame")


def write_card(folder: RunFolder, config: Config, data: TabularDataModule, facts: Facts) -> None:
    """Write the card of a run, whole or not at all; before its ``result.json``.

    Args:
        folder: of the run.
        config: of it.
        data: its rows.
        facts: on the model.
    """
    if has_card(config):
        with atomic_write(folder.card) as file:
            file.write(card(folder, config, data, facts).encode())


def write_card_of_run(member: Member, result: TrainingResult) -> None:
    """The card of a run of one network."""
    network = network_name(member.config, member.data)
    model = f"One network ({network}): its {result.weights} weights of {result.steps:,} optimizer steps"
    is_chosen = result.weights == "best" and result.best is not None and result.best["monitor"].endswith("/val")
    write_card(member.folder, member.config, member.data, facts_of(model, result, is_chosen))


def facts_of(model: str, result: TrainingResult, is_chosen: bool, rows: Mapping[str, str] | None = None) -> Facts:
    """What the result of a run says.

    Args:
        model: what it is, in a line.
        result: of a finished run.
        is_chosen: whether a metric of the validation rows chose its weights.
        rows: what the rows of a split are called, where that is not its name.
    """
    names, base = {**SPLIT_NAMES, **(rows or {})}, (result.baseline or {"metrics": {}})["metrics"]
    measured = [
        Measured(f"{names[split]} rows", _numbers(metrics), _numbers(base.get(split, {})))
        for split, metrics in result.metrics.items()
    ]
    limits = [f"Warning: {one}" for one in result.warnings]
    if is_chosen:
        limits.append(f"The {names['val']} rows chose the weights, so their metrics are a little too good.")
    return Facts(model, measured, limits, result.weights)


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in metrics.items() if value is not None}


def card(folder: RunFolder, config: Config, data: TabularDataModule, facts: Facts) -> str:
    """The text of a card."""
    path = short_path(folder.path) / "checkpoints" / f"{facts.weights}.ckpt"
    targets = ", ".join(data.target.names)
    parts = [
        f"# Model card: {text(targets)} of {text(config.data.title)}",
        f"{text(facts.model)}. Written by mlp-lightning {versions()['mlp-lightning']} when the training ended.",
        "## Data",
        *_data(config, data),
        "## Configuration",
        f"What differs from the defaults; `config.yaml` has all options. The seed is {config.seed}.",
        _table(["option", "value"], _different(config)),
        "## Metrics",
        *_metrics(facts.measured),
        "## Limits",
        _list([*facts.limits, *_limits(config, data)]),
        "## Use",
        *_use(path.as_posix(), config, data),
    ]
    return "\n\n".join(parts) + "\n"


def text(value: Any) -> str:
    r"""A value as text that Markdown shows as it is, in one line.

    >>> text("|x|<script>")
    '\\|x\\|\\<script\\>'
    """
    value = _SECRETS.sub(r"://\1", str(value))
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in value)
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    return _MARKUP.sub(r"\\\1", shown)


def code(lines: Iterable[str], language: str) -> str:
    """A block of code; no line of it can end the block."""
    content = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}{language}\n{content}\n{fence}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(text, row))} |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {text(one)}" for one in lines)


def _data(config: Config, data: TabularDataModule) -> list[str]:
    rows = data.rows
    splits = ", ".join(f"{len(part):,} {SPLIT_NAMES[split]}" for split, part in data.splits.items())
    facts = [
        f"{sum(map(len, data.splits.values())):,} rows: {splits}"
        + (", in the first fold" if config.data.cv.folds else ""),
        *([f"Rows without a value of the target, left out: {rows.dropped:,}"] if rows.dropped else []),
        *(f"Predicts {one.name}: {_described(one, data)}" for one in data.target.columns),
        *(
            f"Fingerprint of the {name} table: {one['rows']:,} rows, {one['as_set']}"
            for name, one in data.fingerprint.items()
        ),
        *(f"Note: {one}" for one in rows.notes),
        *(f"{SPLIT_NAMES[split]} rows: {line}" for split, one in rows.surprises.items() for line in one.lines()),
    ]
    columns = [
        (
            one.name,
            one.kind,
            f"{len(one.vocabulary)} categories" if one.vocabulary else "",
            "yes" if one.missing else "",
        )
        for one in rows.report.columns
    ]
    parts = [_list(facts), _shortened(["column", "kind", "of", "with gaps"], columns)]
    if rows.report.ignored:
        parts += [_shortened(["column that the model does not see", "why"], [*rows.report.ignored.items()])]
    return parts


def _described(column: Any, data: TabularDataModule) -> str:
    if not column.classes:
        return "a number"
    labels_B = data.splits["train"].targets.reshape(-1, len(data.target.columns)).long().numpy()
    counts = np.bincount(labels_B[:, data.target.columns.index(column)], minlength=len(column.classes))
    return "training rows " + ", ".join(
        f"{name} {count:,}" for name, count in zip(column.class_names, counts, strict=True)
    )


def _shortened(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    left_out = (
        [(f"and {len(rows) - _MOST_COLUMNS:,} more", *[""] * (len(head) - 1))] if len(rows) > _MOST_COLUMNS else []
    )
    return _table(head, [*rows[:_MOST_COLUMNS], *left_out])


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in plain.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _different(config: Config) -> list[tuple[str, Any]]:
    default = _flat(Config().to_dict())
    return [
        (key, value)
        for key, value in _flat(config.to_dict()).items()
        if default.get(key) != value and key not in NOT_IN_HASH and key.partition(".")[0] not in (*NOT_IN_HASH, "seed")
    ]


def _metrics(measured: Sequence[Measured]) -> list[str]:
    names = list(dict.fromkeys(name for one in measured for name in one.metrics))
    head = ["rows", *(title for name in names for title in (name, "baseline"))]
    rows = [
        [one.rows, *(cell.get(name, "") for name in names for cell in (one.metrics, one.baseline))] for one in measured
    ]
    about = "The baseline predicts without looking at the columns: it is taken from the training rows."
    return [about, _table(head, rows)]


def _limits(config: Config, data: TabularDataModule) -> list[str]:
    """What the rows do not say, or are too few for."""
    cv, held_out = config.data.cv, [one for one in data.splits if one != "train"]
    what = "The model" if cv.folds is None else "The network of the first fold"
    lines = [
        f"{what} was trained on {len(data.splits['train']):,} rows. How well it does on rows that are unlike these"
        " (of other times, places or groups, with unknown categories or numbers beyond theirs) was not measured.",
        "Whether it does equally well for all parts of the rows, and what causes the target, was not measured.",
    ]
    if cv.trains_all:  # all rows were held out once
        held_out = ["test"] if cv.validates and "test" in held_out else []
    for split in held_out:
        if len(data.splits[split]) < _FEW:
            lines.append(
                f"The {SPLIT_NAMES[split]} rows are only {len(data.splits[split]):,}: chance moves their metrics."
            )
    return lines if "test" in held_out else [*lines, "No rows were kept apart that decided nothing (test rows)."]


def _use(path: str, config: Config, data: TabularDataModule) -> list[str]:
    if config.callbacks.checkpoint is None:
        return ["The run kept no checkpoint (`callbacks.checkpoint` is null), so nothing can load the model."]
    targets = [getattr(part, "_target_", "") for part in (config.data, config.model)]
    own = config.allow_targets or sorted({one.partition(".")[0] for one in targets if one})
    split = evaluable_split(config, data)
    rows = ["data.path=labelled.csv"] if split is None else [f"split={split}"]
    commands = [
        ("mlp-evaluate", *rows),
        ("mlp-explain", *rows),
        ("mlp-predict", "data.path=new.csv", "output=predictions.csv"),
        ("mlp-export", "format=safetensors"),
    ]
    allowed = [f"allow_targets=[{','.join(own)}]"] if own else []
    lines = [shlex.join([name, path_option("ckpt_path", path), *words, *allowed]) for name, *words in commands]
    more = f", allow_targets={own!r}" if own else ""
    of_rows = "'labelled.csv'" if split is None else f"split={split!r}"
    python = [
        "from mlp_lightning import evaluate, predict",
        "from mlp_lightning.inference.export.formats import export_model",
        "from mlp_lightning.inference.loading import load_model",
        "",
        f"checkpoint = {path!r}",
        f"model = load_model(checkpoint{more})",
        f"metrics = evaluate(checkpoint, 'evaluation', {of_rows}{more})",
        f"predict(checkpoint, 'new.csv', 'predictions.parquet'{more})",
        f"export_model(checkpoint, 'safetensors'{more})",
    ]
    about = "In the folder that the training ran in. `new.csv` has the columns above"
    about += "; `labelled.csv` has the target, too." if split is None else "."
    return [about, code(lines, "sh"), code(python, "python")]


def evaluable_split(config: Config, data: TabularDataModule) -> str | None:
    """The held-out rows of the run that a command finds again: a frame is not kept, and a model of folds saw all."""
    if config.data.name == "frame" and not isinstance(config.data, OwnDataConfig):
        return None
    known = [] if config.data.cv.trains_all else ["test", "val"]
    known = ["test"] if config.data.cv.validates else known
    return next((one for one in known if one in data.splits), None)
