"""Pages in Chromium: they open from the disk, ask nobody, and work by mouse, by keyboard and for a screen reader."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_lightning import train
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.report.report import report

if importlib.util.find_spec("selenium") is None:
    pytest.skip("needs the extra: pip install -e '.[browser]'", allow_module_level=True)
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver", allow_module_level=True)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for one in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,1400"):
        options.add_argument(one)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def xor_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "xor"
    config = {
        "data": "xor",
        "model": "wide_deep",
        "trainer": {"max_steps": 600, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "graph": False},
        "verbosity": 0,
    }
    train(config, folder)
    return folder


def opened(browser: Any, run: Path, folder: Path, **options: Any) -> None:
    """Open the page of a run; nothing was asked for, and nothing was said of a fault."""
    browser.get(report(run, folder / "page.html", **options).path.absolute().as_uri())
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []


def serious(browser: Any) -> list[str]:
    """What axe-core finds that keeps people out."""
    found = importlib.util.find_spec("axe_selenium_python")
    assert found is not None
    assert found.origin is not None
    (source,) = Path(found.origin).parent.rglob("axe.min.js")
    # The policy of the page forbids other scripts.
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.refresh()
    browser.execute_script("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    browser.execute_script(source.read_text(encoding="utf-8"))
    done = browser.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
    return [f"{one['id']}: {one['help']}" for one in done["violations"] if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1100])
def test_accessible(browser, xor_run: Path, kind_model, tmp_path: Path, scheme: str, width: int) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for run in (xor_run, kind_model.result.run_dir):
        opened(browser, run, tmp_path, lang="ko" if width < 500 else "en")
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert serious(browser) == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_network_answers(browser, xor_run: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, xor_run, tmp_path)
    model = load_model(xor_run / "checkpoints" / "last.ckpt")
    first, second = browser.find_elements(By.CSS_SELECTOR, ".values input")
    read = browser.find_element(By.CSS_SELECTOR, ".answer")

    def expect(x1: float, x2: float) -> None:
        shown = dict(one.split(": ") for one in read.text.removeprefix("Prediction: ").split(", "))
        assert float(shown["1"]) == pytest.approx(model.predict(np.array([[x1, x2]]))[0, 1], rel=1e-4)

    for x1, x2 in ((0.25, 0.75), (1, -0.5), (1e3, 0)):
        for field, value in ((first, x1), (second, x2)):
            field.clear()
            field.send_keys(str(value))
        expect(x1, x2)
    first.send_keys(Keys.CONTROL, "a")
    first.send_keys(Keys.BACKSPACE)  # missing: the median
    expect(0.5, 0)
    surface = browser.find_element(By.CSS_SELECTOR, ".surface")
    first.send_keys("0.5")
    surface.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    x1, x2 = (float(one.get_attribute("value")) for one in (first, second))
    assert (x1, x2) == (pytest.approx(0.5 + 2 * 0.02 * 1.2), pytest.approx(0.02 * 1.2))
    expect(x1, x2)
    browser.execute_script("arguments[0].scrollIntoView()", surface)
    from selenium.webdriver import ActionChains

    ActionChains(browser).move_to_element_with_offset(surface, 40, -30).click_and_hold().move_by_offset(
        20, 0
    ).release().perform()
    dragged = float(first.get_attribute("value")), float(second.get_attribute("value"))
    width = surface.size["width"]
    assert dragged[0] == pytest.approx(0.5 + 1.2 * 60 / width, abs=0.02)
    expect(*dragged)
    assert browser.get_log("browser") == []


def test_charts_by_keyboard(browser, xor_run: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, xor_run, tmp_path)
    chart = browser.find_element(By.CSS_SELECTOR, "#curves svg[tabindex]")
    read = browser.find_element(By.CSS_SELECTOR, "#curves .read")
    chart.send_keys(Keys.HOME)
    first = read.text
    chart.send_keys(Keys.ARROW_RIGHT)
    data = json.loads(browser.find_element(By.ID, "data").get_attribute("textContent"))
    (loss,) = data["curves"]["charts"][0]["series"]
    assert first.startswith("step 0: training 0.69")
    assert read.text.startswith(f"step {loss['steps'][1]}: ")
    threshold = browser.find_element(By.CSS_SELECTOR, "#probabilities input[type=range]")
    before = browser.find_element(By.CSS_SELECTOR, "#probabilities [role=status]").text
    threshold.send_keys(Keys.HOME)
    after = browser.find_element(By.CSS_SELECTOR, "#probabilities [role=status]").text
    assert before != after
    assert "2 rightly, 2 wrongly; 0" in after, "from 0 on, all four rows count as the class"
    assert browser.get_log("browser") == []


def test_a_sweep(browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    for number, units in enumerate((2, 3, 4)):
        config = {
            "data": "iris",
            "model": {"hidden_units": units},
            "trainer": {"max_steps": 5, "accelerator": "cpu"},
            "logger": {"tensorboard": False, "graph": False},
            "verbosity": 0,
        }
        train(config, tmp_path / "sweep" / str(number))
    opened(browser, tmp_path / "sweep", tmp_path)

    def rows() -> list[str]:
        return [one.text for one in browser.find_elements(By.CSS_SELECTOR, ".board tbody tr td:nth-child(3)")]

    assert sorted(rows()) == ["0", "1", "2"]
    heads = browser.find_elements(By.CSS_SELECTOR, ".board th button")
    next(one for one in heads if one.text == "Run").click()
    assert rows() == ["0", "1", "2"]
    next(one for one in browser.find_elements(By.CSS_SELECTOR, ".board th button") if one.text == "Run").click()
    assert rows() == ["2", "1", "0"]
    browser.find_element(By.CSS_SELECTOR, ".board input[type=search]").send_keys("hidden_units=3")
    assert rows() == ["1"]
    browser.find_element(By.CSS_SELECTOR, ".board tbody input").click()
    assert (
        "model.hidden_units"
        in browser.find_element(By.CSS_SELECTOR, ".board table caption").find_element(By.XPATH, "..").text
    )
    assert browser.get_log("browser") == []
    assert serious(browser) == []
