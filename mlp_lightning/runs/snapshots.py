"""After which steps a training keeps its weights, for the reports that replay it."""

from __future__ import annotations

from collections.abc import Sequence

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.runs.build import count_parameters
from mlp_lightning.runs.member import Member

#: Parameters of a network whose weights are kept, and bytes of those of a whole stack.
MOST_PARAMETERS, MOST_BYTES = 100_000, 1 << 32


def snapshot_steps(members: Sequence[Member], last_step: int) -> tuple[int, ...]:
    """Step 0, the last one, and others between them at equal ratios: early steps change most.

    Args:
        members: of a training, which have this option in common.
        last_step: of it.

    Raises:
        ConfigError: the weights are too many to keep.
    """
    count = members[0].config.callbacks.snapshots
    if count is None:
        return ()
    parameters = [count_parameters(one.config, one.data) for one in members]
    if (most := max(parameters)) > MOST_PARAMETERS:
        rule = f"is for networks of up to {MOST_PARAMETERS:,} parameters, and this one has {most:,}"
        raise ConfigError([Fault("callbacks.snapshots", count, rule, "use null")])
    # A stack has the widest network's place for each of its members.
    if (needed := 8 * count * most * len(members)) > MOST_BYTES:
        rule = f"would take {needed / 2**30:.1f} GiB for {len(members):,} networks together, and the limit is"
        rule += f" {MOST_BYTES / 2**30:g} GiB"
        raise ConfigError([Fault("callbacks.snapshots", count, rule, "choose fewer, or train fewer networks at once")])
    found = {round(last_step ** (place / (count - 2))) for place in range(count - 1)} if count > 2 else {last_step}
    return tuple(sorted({0, *found}))
