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
    code = (
        "import gc, json, sys; from mlp_lightning.runs.libraries import import_libraries; import_libraries();"
        f"print(json.dumps([gc.isenabled(), 'lightning' in sys.modules, {SIGNAL}]))"
    )
    assert printed(code) == [True, True, []]


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
