"""The configuration: schema, checks and the files of ``conf/``. Imports no torch."""

from mlp_lightning.config.conf_files import conf_dir
from mlp_lightning.config.defaults import offer_to_hydra
from mlp_lightning.config.ensembles import EnsembleConfig, PresetConfig
from mlp_lightning.config.parsing import parse_complete, parse_config
from mlp_lightning.config.schedules import (
    ConstantSchedule,
    CosineSchedule,
    InverseTimeSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    ScheduleConfig,
    StepSchedule,
)
from mlp_lightning.config.schema import (
    CallbacksConfig,
    CheckpointConfig,
    ColumnConfig,
    Config,
    CrossValidationConfig,
    CsvConfig,
    DataConfig,
    EarlyStoppingConfig,
    LoggerConfig,
    ModelConfig,
    OptimizerConfig,
    OwnDataConfig,
    OwnModelConfig,
    OwnOptimizerConfig,
    SweepConfig,
    TrainerConfig,
)
from mlp_lightning.config.search import SearchConfig

__all__ = [
    "CallbacksConfig",
    "CheckpointConfig",
    "ColumnConfig",
    "Config",
    "ConstantSchedule",
    "CosineSchedule",
    "CrossValidationConfig",
    "CsvConfig",
    "DataConfig",
    "EarlyStoppingConfig",
    "EnsembleConfig",
    "InverseTimeSchedule",
    "LoggerConfig",
    "ModelConfig",
    "OneCycleSchedule",
    "OptimizerConfig",
    "OwnDataConfig",
    "OwnModelConfig",
    "OwnOptimizerConfig",
    "PlateauSchedule",
    "PresetConfig",
    "ScheduleConfig",
    "SearchConfig",
    "StepSchedule",
    "SweepConfig",
    "TrainerConfig",
    "conf_dir",
    "parse_complete",
    "parse_config",
]

offer_to_hydra()  # conf/ begins with the schema's defaults
