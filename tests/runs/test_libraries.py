"""The libraries are imported quickly, and work as if they had been imported plainly."""

from __future__ import annotations

import json
import subprocess
import sys


def printed(code: str) -> object:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


SIGNAL = "[one for one in sys.modules if one.startswith('scipy.signal.')]"


def test_what_nothing_uses_is_not_imported() -> None:
    """Nor by optimizers, which ask torch's compiler to leave them out, or by what scikit-learn splits with."""
    code = f"""
import gc, json, sys
from mlp_lightning.runs.libraries import import_libraries
import_libraries()
import torch
weights = torch.nn.Parameter(torch.ones(3))
for kind in (torch.optim.SGD, torch.optim.AdamW):
    optimizer = kind([weights], lr=0.1)
    (weights**2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
from sklearn.model_selection import train_test_split
train_test_split(range(9))
heavy = ["torch._dynamo.convert_frame", "matplotlib", "scipy.stats.distributions"]
print(json.dumps([gc.isenabled(), "lightning" in sys.modules, {SIGNAL}, [one for one in heavy if one in sys.modules]]))
"""
    assert printed(code) == [True, True, [], []]


def test_what_the_compiler_is_kept_out_of_can_be_called_again_and_again() -> None:
    """torch keeps what it has found for such a function, and asks that the next time."""
    code = """
import json
from mlp_lightning.runs.libraries import import_libraries
import_libraries()
import torch
made = []
for _ in range(3):
    with torch.device("meta"):
        made.append(list(torch.empty(3, 2).uniform_().shape))
        made.append(list(torch.nn.init.normal_(torch.empty(4)).shape))
@torch._disable_dynamo
def own(value):
    return value + 1
made += [own(1), own(2)]
import torch._dynamo.config
made += [own(3), own(4)]
print(json.dumps(made))
"""
    assert printed(code) == [*([[3, 2], [4]] * 3), 2, 3, 4, 5]


def test_torch_compiles_as_ever() -> None:
    """With modules of its compiler that are imported first, too; optimizers are then left out again."""
    code = """
import json, sys
from mlp_lightning.runs.libraries import import_libraries
import_libraries()
import lightning.pytorch as pl, torch
from lightning.fabric.wrappers import _unwrap_compiled
from lightning.pytorch.utilities.compile import from_compiled
before = torch.nn.Linear(3, 2)
unwrapped = _unwrap_compiled(before)[0] is before
import torch._dynamo.config as config
from torch._dynamo.eval_frame import OptimizedModule
one_each = torch._dynamo.config is config and torch._dynamo.OptimizedModule is OptimizedModule
module = pl.LightningModule()
module.forward = lambda x: x.sin() + 2
compiled = torch.compile(module, backend="eager")
from_compiled(compiled)
value = compiled(torch.zeros(2)).tolist()
graphs = []
def counted(graph, inputs):
    graphs.append(graph)
    return graph.forward
def broken(x):
    y = x + 1
    torch._dynamo.graph_break()
    return y * 2
torch.compile(broken, backend=counted)(torch.ones(2))
weights = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weights], lr=0.5)
weights.grad = torch.ones(3)
optimizer.step()
plain = torch.optim.Optimizer.add_param_group.__wrapped__
print(json.dumps([unwrapped, one_each, isinstance(compiled, OptimizedModule), value, len(graphs), weights.tolist(),
                  "eval_frame" in plain.__dynamo_disable.__code__.co_filename]))
"""
    assert printed(code) == [True, True, True, [2.0, 2.0], 2, [0.5] * 3, True]


def test_metrics_plot_and_rank_as_ever() -> None:
    code = """
import json
from mlp_lightning.runs.libraries import import_libraries
import_libraries()
import matplotlib; matplotlib.use("agg")
import torchmetrics
from sklearn.metrics import label_ranking_loss
from torchmetrics.utilities.plot import plot_curve
metric = torchmetrics.MeanMetric(); metric.update(3.0)
figure, axes = metric.plot()
import scipy.stats
ranking = [label_ranking_loss([[1, 0]], [scores]) for scores in ([0.1, 0.2], [0.2, 0.1])]
print(json.dumps([type(figure).__name__, type(plot_curve).__name__, ranking, scipy.stats.norm.cdf(0.0),
                  scipy.stats.rankdata([3, 1, 2]).tolist()]))
"""
    assert printed(code) == ["Figure", "function", [1.0, 0.0], 0.5, [3.0, 1.0, 2.0]]


def test_it_is_there_when_it_is_used() -> None:
    code = (
        "import json, sys; from mlp_lightning.runs.libraries import import_libraries; import_libraries();"
        "import scipy.signal; hamming = scipy.signal.hamming(5).tolist(); from scipy.signal import lfilter;"
        "import scipy.signal.windows as windows; from scipy import signal;"
        "print(json.dumps([hamming == windows.hamming(5).tolist(), signal.lfilter is lfilter,"
        f"list(lfilter([1.0], [1.0, -0.5], [1.0, 0.0, 0.0])), len({SIGNAL}) > 0]))"
    )
    assert printed(code) == [True, True, [1.0, 0.5, 0.25], True]


def test_a_collector_that_is_off_stays_off() -> None:
    code = (
        "import gc, json; gc.disable(); from mlp_lightning.runs.libraries import import_libraries;"
        "import_libraries(); print(json.dumps(gc.isenabled()))"
    )
    assert printed(code) is False
