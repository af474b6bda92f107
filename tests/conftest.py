"""For all tests: eight fake CPU devices for the sharded ones, no network, and each program compiled once a session."""

import atexit
import base64
import collections
import io
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import xla_flags
from patience import DEADLINE
from PIL import Image

# Below nohup and in a script's background job, Python starts with these ignored, and so would the processes that tests start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# Before the first import of jax anywhere. The first device alone is used unless a test asks for more.
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {xla_flags.QUICK}")
os.environ["XLA_FLAGS"] += f" {xla_flags.PATIENT}"
os.environ["HF_HUB_OFFLINE"] = "1"

# Compilation is most of the time: many tests compile the same small towers. Each worker of pytest-xdist has its own cache:
# JAX was seen to read what another was still writing.
_COMPILED = tempfile.mkdtemp(prefix="salmu-tests-compiled-")
atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")


def _declare_torchvision_operators() -> None:
    """Lets torchvision import beside a CPU build of torch that it was not built for (transformers and OpenCLIP import it)."""
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        signatures = {
            "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        }
        for name, signature in signatures.items():
            torch.library.define(f"torchvision::{name}", signature)


_declare_torchvision_operators()


# Files that take minutes with few tests. They begin first, lest a worker be left alone with one of them in the end.
_LONGEST = ("tests/training/test_two_processes.py",)


def _scope(nodeid: str) -> str:
    """Returns what stays on one worker: a file, and all of the command line, whose tests share a run that takes a minute."""
    return "tests/cli" if nodeid.startswith("tests/cli/") else nodeid.split("::", 1)[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Puts the longest files first for the workers of pytest-xdist, then those with the most tests."""
    if hasattr(config, "workerinput"):
        count = collections.Counter(_scope(item.nodeid) for item in items)
        items.sort(key=lambda item: (_scope(item.nodeid) not in _LONGEST, -count[_scope(item.nodeid)]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hands out whole scopes in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium with an empty profile, or a skip that says why."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip(f"no browser to open the page with (chromium: {binary}, chromedriver: {driver})")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    flags = (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    )  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chromium.command_executor.client_config.timeout = DEADLINE
    for wait in (chromium.set_page_load_timeout, chromium.set_script_timeout):
        wait(DEADLINE)
    yield chromium
    chromium.quit()


@pytest.fixture(scope="session")
def check_page(browser):
    """A function that opens a page, asserts that every picture is shown and nothing complains, and counts the pictures."""

    def check(page: Path, scheme: str, width: int) -> int:
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get(page.as_uri())
        pictures = browser.execute_script(
            """return Promise.all(Array.from(document.images, (image) => image.decode())).then(() =>
                 Array.from(document.images, (image) => {
                   const box = image.getBoundingClientRect();
                   const frame = image.closest(".scroll")?.getBoundingClientRect() ?? box;
                   return {natural: image.naturalWidth, source: image.currentSrc, left: box.left, top: box.top + scrollY,
                           right: Math.min(box.right, frame.right), bottom: box.bottom + scrollY};
                 }))"""
        )
        height, page_width = browser.execute_script(
            "return [document.documentElement.scrollHeight, document.documentElement.scrollWidth]"
        )
        assert page_width == width  # only the frames of tables and figures scroll sideways
        shot = browser.execute_cdp_cmd(
            "Page.captureScreenshot",
            {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}},
        )
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("L"), np.float32)
        assert pixels.shape == (height, width)
        assert (pixels[5, 5] < 60) == (scheme == "dark")
        for picture in pictures:
            assert picture["natural"] > 0
            left, top, right, bottom = (round(picture[side]) for side in ("left", "top", "right", "bottom"))
            region = pixels[top:bottom, left:right]
            assert min(region.shape) >= 80, picture
            assert region.std() > 8, f"a picture at {left}, {top} is blank"
        assert browser.get_log("browser") == []
        return len(pictures)

    return check
