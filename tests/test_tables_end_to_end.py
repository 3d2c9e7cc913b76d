"""From a table to an exported model by the real commands alone: train, evaluate, predict, export."""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss, r2_score
from support.commands import ROOT, run_forked, run_script

from mlp_lightning.config import CsvConfig
from mlp_lightning.inference.loading import load_model
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN
from mlp_lightning.tables.reading.moments import converted_moments
from mlp_lightning.tables.reading.sources import FileSource

pytestmark = pytest.mark.slow

Case = tuple[str, list[str], str]  # data.path, further overrides of the training, what to export


def penguins(folder: Path) -> Case:
    """Texts, numbers, dates and truth values, all with gaps."""
    generator = np.random.default_rng(0)
    names = ["Adelie", "Chinstrap", "Gentoo"]
    with (folder / "penguins.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "species", "island", "bill length (mm)", "mass", "sex", "tagged", "seen"])
        for row in range(150):
            kind = int(generator.integers(3))

            def or_gap(value: object) -> object:
                return value if generator.random() > 0.05 else ""

            writer.writerow(
                [
                    f"N{row}",
                    or_gap(names[kind]),
                    or_gap(generator.choice(["Biscoe", "Dream", "Torgersen"])),
                    or_gap(round(38 + 5 * kind + generator.normal(), 1)),
                    or_gap(int(3700 + 700 * kind + 200 * generator.normal())),
                    or_gap(generator.choice(["male", "female"])),
                    or_gap(bool(generator.integers(2))),
                    or_gap(f"2008-{generator.integers(1, 13):02d}-{generator.integers(1, 28):02d}"),
                ]
            )
    return "penguins.csv", ["data.target=species", "trainer.max_epochs=30"], "onnx"


def regression(folder: Path) -> Case:
    generator = np.random.default_rng(1)
    area, rooms = generator.uniform(30, 200, 200), generator.integers(1, 6, 200)
    kind = generator.choice(["flat", "house"], 200)
    price = 2_000_000 + 3_000 * area + 20_000 * rooms + 50_000 * (kind == "house") + generator.normal(0, 5_000, 200)
    pyarrow.csv.write_csv(pa.table({"area": area, "rooms": rooms, "kind": kind, "price": price}), folder / "homes.csv")
    return "homes.csv", ["data.target=price", "trainer.max_epochs=60"], "onnx"


def wide(folder: Path) -> Case:
    generator = np.random.default_rng(2)
    features = generator.normal(size=(120, 500))
    label = np.where(features[:, :3].sum(1) > 0, "up", "down")
    columns: dict[str, Any] = {f"gene_{number}": features[:, number] for number in range(500)}
    pa.parquet.write_table(pa.table({**columns, "label": label}), folder / "genes.parquet")
    return "genes.parquet", ["data.target=label", "trainer.max_epochs=15"], "onnx"


def one_row_per_class(folder: Path) -> Case:
    (folder / "colours.csv").write_text("name,r,g,b\nred,255,0,0\ngreen,0,255,0\nblue,0,0,255\nwhite,255,255,255\n")
    every_row = ["data.val_fraction=0", "data.test_fraction=0", "trainer.max_epochs=200"]
    return "colours.csv", ["data.target=name", "data.columns.name.kind=categorical", *every_row], "torch"


def parquet_folder(folder: Path) -> Case:
    generator = np.random.default_rng(3)
    (folder / "parts").mkdir()
    for part in range(3):
        x, city = generator.normal(size=60), generator.choice([f"city {number}" for number in range(15)], 60)
        table = pa.table({"x": x, "city": city, "high": x + 0.1 * generator.normal(size=60) > 0})
        pa.parquet.write_table(table, folder / "parts" / f"part-{part}.parquet")
    return "parts", ["data.target=high", "trainer.max_epochs=20"], "onnx"


def european(folder: Path) -> Case:
    generator = np.random.default_rng(4)
    lines = ["Größe;Gewicht;Ort;Preis"]
    for _ in range(120):
        size, weight = generator.uniform(1, 2), generator.uniform(40, 100)
        price = 100 * size + weight
        numbers = [f"{one:.3f}".replace(".", ",") for one in (size, weight, price)]
        lines.append(f"{numbers[0]};{numbers[1]};{generator.choice(['Köln', 'Bonn', ''])};{numbers[2]}")
    (folder / "preise.csv").write_bytes("\n".join(lines).encode("latin-1"))
    return "preise.csv", ["data.target=Preis", "data.csv.encoding=latin-1", "trainer.max_epochs=60"], "onnx"


def weather(folder: Path) -> Case:
    """Three targets of two classes each, written in three ways, with gaps."""
    generator = np.random.default_rng(5)
    lines = ["pressure,humidity,season,rain,wind,frost"]
    for _ in range(300):
        pressure, humidity = generator.normal(1013, 10), generator.uniform(20, 100)
        season = generator.choice(["winter", "spring", "summer", "autumn"])
        rain = "yes" if humidity - pressure + 1013 > 60 else "no"
        frost = int(season == "winter" and humidity < 70)
        wind = "" if generator.random() < 0.05 else pressure < 1008
        lines.append(f"{pressure:.1f},{humidity:.0f},{season},{rain},{wind},{frost}")
    (folder / "weather.csv").write_text("\n".join(lines), encoding="utf-8")
    return "weather.csv", ["data.target=[rain,wind,frost]", "trainer.max_epochs=60"], "onnx"


def visits(folder: Path) -> Case:
    """Days before months, times of day, and a folder for each ward; of which one part alone says what days are."""
    generator = np.random.default_rng(5)
    for ward in ("east", "west"):
        (folder / "visits" / f"ward={ward}").mkdir(parents=True)
        lines = ["seen;at;late"]
        for row in range(90):
            seen = datetime.date(2022, 1, 1) + datetime.timedelta(days=int(generator.integers(12 if row else 700)))
            hour, minute = generator.integers(24), generator.integers(60)
            lines.append(f"{seen:%d/%m/%Y};{hour}:{minute:02d};{'yes' if hour >= 14 else 'no'}")
        lines.append(f"{'30/11/2023' if ward == 'east' else '01/02/2022'};23:59;yes")
        (folder / "visits" / f"ward={ward}" / "rows.csv").write_text("\n".join(lines))
    return "visits", ["data.target=late", "trainer.max_epochs=40"], "onnx"


CASES: list[Callable[[Path], Case]] = [
    *(penguins, regression, wide, one_row_per_class, parquet_folder, european, weather, visits),
]


def run_quickly(script: str, *arguments: str, cwd: Path) -> Any:
    """The same script, seconds faster."""
    done = run_forked(str(ROOT / "scripts" / script), *arguments, folder=cwd)
    assert done.returncode == 0, f"{script} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done


@pytest.mark.parametrize("make", CASES, ids=[one.__name__ for one in CASES])
def test_from_the_table_to_the_exported_model(make: Callable[[Path], Case], tmp_path: Path) -> None:
    path, overrides, export = make(tmp_path)
    run = run_script if make is penguins else run_quickly
    run("train.py", "data=table", f"data.path={path}", *overrides, "logger=none", "verbosity=0", cwd=tmp_path)
    (checkpoint,) = tmp_path.glob("lightning_logs/table/*/checkpoints/best.ckpt")
    at = f"ckpt_path={checkpoint.relative_to(tmp_path)}"
    predict = ("predict.py", at, f"data.path={path}", "output=out/predictions.csv")
    if make is penguins:
        predict = (*predict, "id_columns=[id,seen]")
    run(*predict, cwd=tmp_path)
    run("evaluate.py", at, f"data.path={path}", "output=figures", cwd=tmp_path)
    done = run("export.py", at, f"format={export}", f"output=model.{export}", cwd=tmp_path).stdout
    assert "Predicts as the checkpoint does" in done

    model = load_model(checkpoint)
    source = FileSource.open(str(tmp_path / path), model.config.data.csv)
    table = source.read(types={one.name: one.read_type for one in model.columns})
    predictions = FileSource.open(str(tmp_path / "out" / "predictions.csv"), CsvConfig()).read()
    assert predictions.num_rows == table.num_rows
    if make is penguins:
        assert predictions.column("id").to_pylist() == table.column("id").to_pylist()
    predicted_BC = _numbers(model.target, predictions)
    _compare_metrics(model.target, table, predicted_BC, json.loads((tmp_path / "figures" / "metrics.json").read_text()))
    picture = "residuals.png" if model.target.task == "regression" else "confusion_matrix.png"
    assert (tmp_path / "figures" / picture).read_bytes().startswith(b"\x89PNG")
    run_exported = _run_onnx if export == "onnx" else _run_torch
    exported_BC = run_exported(next(tmp_path.glob("model*.onnx" if export == "onnx" else "model*.pt2")), model, table)
    scale = max(1.0, float(np.abs(predicted_BC).max()))
    assert np.abs(exported_BC - predicted_BC).max() <= 1e-5 * scale


def _numbers(target: Any, predictions: pa.Table) -> NDArray[np.float64]:
    """The predictions of a file as one column per class or output."""
    if target.task == "regression":
        names = [f"predicted_{name}" for name in target.names]
    elif target.task == "multilabel":
        names = ["probability_rain_yes", "probability_wind_True", "probability_frost_1"]
    else:
        names = [f"probability_{name}" for name in target.class_names]
    return np.stack([predictions.column(name).to_numpy() for name in names], axis=1)


def _compare_metrics(target: Any, table: pa.Table, predicted_BC: NDArray[np.float64], found: dict[str, Any]) -> None:
    """What ``evaluate`` says is what scikit-learn finds in what ``predict`` wrote."""
    truth = table.column(target.names[0])
    known = np.all([table.column(name).is_valid().to_numpy() for name in target.names], axis=0)
    assert found["dropped"] == (~known).sum()
    if target.task == "regression":
        expected = r2_score(truth.to_numpy()[known], predicted_BC[known, 0])
        assert math.isclose(found["metrics"]["r2"], expected, rel_tol=1e-5)
        assert expected > 0.9, "nothing was learnt"
        return
    if target.task == "multilabel":
        seconds = {"rain": "yes", "wind": True, "frost": 1}
        values = [[one == seconds[name] for one in table.column(name).to_pylist()] for name in target.names]
        truth_BT, predicted_BT = np.array(values).T[known], predicted_BC[known] > 0.5
        metrics = found["metrics"]
        assert math.isclose(metrics["exact_match"], accuracy_score(truth_BT, predicted_BT), rel_tol=1e-9)
        assert math.isclose(metrics["macro_f1"], f1_score(truth_BT, predicted_BT, average="macro"), rel_tol=1e-9)
        assert math.isclose(metrics["accuracy"], (truth_BT == predicted_BT).mean(), rel_tol=1e-9)
        assert [one["label"] for one in found["per_label"]] == ["rain", "wind", "frost"]
        assert set(found["confusion_matrix"]) == {"rain", "wind", "frost"}
        assert metrics["exact_match"] > 0.8, "nothing was learnt"
        return
    classes = target.columns[0].classes
    labels = np.array([classes.index(one) for one in truth.to_pylist() if one is not None])
    accuracy = accuracy_score(labels, predicted_BC[known].argmax(1))
    assert math.isclose(found["metrics"]["accuracy"], accuracy, rel_tol=1e-9)
    loss = log_loss(labels, predicted_BC[known], labels=range(len(classes)))
    assert math.isclose(found["metrics"]["log_loss"], loss, rel_tol=1e-4)
    assert accuracy > 0.7, "nothing was learnt"


def _run_onnx(path: Path, model: Any, table: pa.Table) -> NDArray[np.float64]:
    """The exported model on raw columns, texts as texts."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {}
    for column in model.columns:
        values = table.column(column.name)
        if column.kind == "categorical":
            feed = np.array([["" if one is None else one] for one in values.to_pylist()], dtype=object)
        elif column.kind == "datetime":
            if column.format:
                values = converted_moments(column.name, values, column.format, str)
            feed = values.cast(pa.int64()).cast(pa.float64()).to_numpy()[:, None] / 1e6
        else:
            values = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
            feed = values.cast(pa.float64()).to_numpy()[:, None]
        feeds[column.name] = feed
    name = "prediction" if model.target.task == "regression" else "probabilities"
    (outputs,) = session.run([name], feeds)
    return np.asarray(outputs, dtype=np.float64)


def _run_torch(path: Path, model: Any, table: pa.Table) -> NDArray[np.float64]:
    """The exported program on raw columns, categories as codes."""
    program = torch.export.load(path).module()
    columns = {}
    for column in model.columns:
        values = table.column(column.name).to_pylist()
        if column.kind == "categorical":
            places = {one: number + FIRST_CATEGORY for number, one in enumerate(column.vocabulary)}
            values = [MISSING if one is None else places.get(one, UNKNOWN) for one in values]
            columns[column.name] = torch.tensor(values)
        else:
            values = [math.nan if one is None else float(one) for one in values]
            columns[column.name] = torch.tensor(values, dtype=torch.float64)
    return program(columns).detach().double().numpy()
