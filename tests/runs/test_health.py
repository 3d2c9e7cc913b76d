"""A run that cannot learn says why, in one message, by name, with the step."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import mlp_lightning
from mlp_lightning.errors import NonFiniteLossError, NoParameterChangedError
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.module import MLPModule


def test_learning_rate_of_zero(tmp_path, compose_config) -> None:
    with pytest.raises(NoParameterChangedError) as caught:
        mlp_lightning.train(compose_config("data=xor", "optimizer.lr=0"), tmp_path / "run")
    message = str(caught.value)
    assert "No parameter changed in steps 0 to " in message
    assert "mlp.layers.linear_1.weight, mlp.layers.linear_1.bias" in message
    assert "The learning rate of SGD is 0: set optimizer.lr above 0." in message
    # Found early, not at the end of 10,001 steps.
    assert int(message.split("steps 0 to ")[1].split(":")[0]) < 1000


def test_it_is_found_at_the_end_of_a_short_run(tmp_path, compose_config) -> None:
    with pytest.raises(NoParameterChangedError, match="steps 0 to 2:"):
        mlp_lightning.train(compose_config("optimizer.lr=0", "trainer.max_steps=3"), tmp_path / "run")


def test_optimizer_of_another_model(tmp_path, compose_config, monkeypatch) -> None:
    """The mistake of the published iris run of width 5, whose loss never moved."""
    other = torch.nn.Linear(4, 3)
    monkeypatch.setattr(MLPModule, "parameters", lambda self, recurse=True: other.parameters(recurse))
    case = ["experiment=iris_hidden_units", "model.hidden_units=5", "trainer.engine=autograd"]
    with pytest.raises(NoParameterChangedError, match="SGD holds none of them: it was built for another model"):
        mlp_lightning.train(compose_config(*case), tmp_path / "run")


def test_zero_gradients(tmp_path, compose_config) -> None:
    case = ["model.init=zeros", "model.activation=relu", "model.bias=false"]
    with pytest.raises(NoParameterChangedError, match="All their gradients are zero"):
        mlp_lightning.train(compose_config(*case), tmp_path / "run")


@pytest.mark.parametrize("schedule", [["scheduler=one_cycle", "scheduler.max_lr=1e25"], ["optimizer.lr=1e25"]])
def test_learning_rate_of_the_step_whose_loss_is_no_number(schedule, tmp_path, compose_config) -> None:
    """Steps after it may have been made already, at other rates."""
    case = ["data=iris", "trainer.max_steps=60", "trainer.steps_per_execution=60", "trainer.log_every_n_steps=1"]
    case += ["trainer.check_val_every_n_epoch=60", *schedule]
    with pytest.raises(NonFiniteLossError) as caught:
        mlp_lightning.train(compose_config(*case), tmp_path / "alone")
    (stacked, _) = train_stack([compose_config(*case)] * 2, [tmp_path / "a", tmp_path / "b"])
    for message in (str(caught.value), stacked.error):
        step = int(re.search(r"at step (\d+)", message)[1])
        rate = float(re.search(r"learning rate (\S+)\)", message)[1])
        assert rate == pytest.approx(1e25 if len(schedule) == 1 else one_cycle(1e25, 60)[step], rel=1e-4)


def one_cycle(highest: float, steps: int) -> list[float]:
    """Torch's own schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, steps + 1, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_updates_too_small_for_the_number_format(tmp_path, compose_config) -> None:
    with pytest.raises(
        NoParameterChangedError, match=r"too small for the number format: raise optimizer\.lr \(1e-30\)"
    ):
        mlp_lightning.train(compose_config("optimizer.lr=1e-30"), tmp_path / "run")


@pytest.mark.parametrize("steps_per_execution", ["1", "auto"])
def test_loss_that_is_not_finite(steps_per_execution, tmp_path, compose_config) -> None:
    case = ["data=iris", "optimizer.lr=1e30", f"trainer.steps_per_execution={steps_per_execution}"]
    with pytest.raises(
        NonFiniteLossError, match=r"The training loss became (nan|inf) at step 1 \(SGD, learning rate 1e\+30\)"
    ):
        mlp_lightning.train(compose_config(*case), tmp_path / "run")


def test_step_is_named_within_an_execution(tmp_path, compose_config, monkeypatch) -> None:
    """Step 7 of an execution of many steps turns NaN."""
    from mlp_lightning.networks.tasks import BinaryTask

    calls = []
    original = BinaryTask.loss

    def loss(self: BinaryTask, *given: Any) -> torch.Tensor:
        calls.append(1)
        value = original(self, *given)
        return value * float("nan") if len(calls) > 7 else value

    monkeypatch.setattr(BinaryTask, "loss", loss)
    with pytest.raises(NonFiniteLossError, match="became nan at step 7 "):
        mlp_lightning.train(compose_config("data=xor", "trainer.engine=autograd"), tmp_path / "run")


def test_weights_that_overflow_in_the_last_step(tmp_path, compose_config) -> None:
    """No training loss sees the weights after the last update; the final metrics do."""
    case = ["data=iris", "optimizer.lr=1e30", "trainer.max_steps=1"]
    with pytest.raises(NonFiniteLossError, match=r"metrics after the last step \(1\) are not finite"):
        mlp_lightning.train(compose_config(*case), tmp_path / "run")


def test_healthy_run_with_parameters_that_do_not_change(tmp_path, compose_config) -> None:
    """Some parameters may stay unchanged: a dead unit is not a dead run."""
    result = mlp_lightning.train(compose_config("model.activation=relu", "trainer.max_steps=200"), tmp_path / "run")
    assert result.status == "finished"
