"""Names that a configuration may use. Plain tuples, so that they can be checked before torch is imported.

``tests/config/test_names.py`` compares each tuple with the code that implements the names.
"""

from mlp_lightning.config.conf_files import dict_keys, option_names

NORMS = ("none", "batch", "layer")
INITS = (
    "default",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "orthogonal",
    "zeros",
)
# Data sets with training rows only: they cannot be split.
DATA_SETS_WITHOUT_SPLIT = ("xor", "parity")
# Tables that scikit-learn ships, and synthetic ones.
SKLEARN_SETS = ("iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud")
SYNTHETIC_SETS = ("moons", "circles", "spirals", "parity", "blobs", "friedman")
COLUMN_KINDS = ("auto", "numeric", "categorical", "boolean", "datetime", "ignored")
# Of strptime's, those that a form of dates and times is made of.
MOMENT_LETTERS = tuple("YymdbBaAHIMSfpz")
SCALINGS = ("standard", "robust", "quantile", "none")
NUMERIC_EMBEDDINGS = ("none", "periodic", "piecewise_linear")
DELIMITERS = ("auto", ",", ";", "tab", "|", "space")
THOUSANDS = ("auto", "none", ",", ".", "space", "apostrophe")
EXPORT_FORMATS = ("safetensors", "torch", "onnx")
LANGUAGES = ("en", "ko")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
STORES = ("auto", "folders", "packed")
ENGINES = ("auto", "autograd", "explicit", "stacked", "compiled")
PRECISIONS = ("32", "64", "bf16-mixed")
MONITORS = ("loss/train", "loss/val", "accuracy/val")
# Classes of torch.optim whose step needs no closure and takes dense gradients of any shape.
TORCH_OPTIMIZERS = (
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
)
# The arguments of those that no file in conf/optimizer describes.
_OF_ALL = ("weight_decay", "foreach", "maximize", "differentiable", "capturable")
OTHER_OPTIMIZERS = {
    "ASGD": ("lambd", "alpha", "t0", *_OF_ALL),
    "Adadelta": ("rho", "eps", *_OF_ALL),
    "Adafactor": ("beta2_decay", "eps", "d", "weight_decay", "foreach", "maximize"),
    "Adamax": ("betas", "eps", *_OF_ALL),
    "RAdam": ("betas", "eps", "decoupled_weight_decay", *_OF_ALL),
    "Rprop": ("etas", "step_sizes", *_OF_ALL[1:]),
}
# Those that work elementwise, whose update is proportional to the learning rate, and in which a gradient that is
# always zero changes nothing: runs with these can train as one stack, each with its own learning rate.
# (ASGD and Rprop use the learning rate otherwise, Adafactor looks at whole matrices.)
STACKABLE_OPTIMIZERS = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")


def tasks() -> tuple[str, ...]:
    """Names of all tasks. One is known by its entry, so that adding one means no change here."""
    return dict_keys("networks/tasks/__init__.py", "TASKS")


def activations() -> tuple[str, ...]:
    """Names of all activations. One is known by its entry, so that adding one means no change here."""
    return dict_keys("networks/activations.py", "ACTIVATIONS")


def data_sets() -> tuple[str, ...]:
    """Names of all data sets. One is known by its file in ``conf/data``, so that adding one means no change here."""
    return tuple(dict.fromkeys([*(name for name in option_names("data") if name != "sklearn"), *SKLEARN_SETS]))


def data_names() -> tuple[str, ...]:
    """What ``data.name`` can be."""
    return (*data_sets(), "frame")
