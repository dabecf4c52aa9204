#!/usr/bin/env python
"""Measure in a real browser how long the page takes to train, and to answer what an image is.

    python scripts/bench_app.py [ROUNDS]

In each of ROUNDS (5) a new visitor adds three classes of 20 images, presses Train, and tries new images. The seconds
of training end when the first image that is tried is answered; the milliseconds of an answer are those from choosing
a file to the answer on the page. A round before the first is not counted. Needs a browser and
`pip install 'pretrain-transfer-toolkit[app]' playwright`. Record: docs/results/bench_app.json.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from benchmarking import write_record
from PIL import Image
from sklearn.datasets import load_digits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLASSES, EXAMPLES, TRIES, SIDE = (5, 6, 7), 20, 10, 64
START = """() => {
  const start = () => { window.began = performance.now(); };
  document.querySelector("#train").addEventListener("click", start, { once: true });
}"""
WATCH = """() => {
  const answer = document.querySelector("#answer");
  const picture = () => answer.querySelector("img")?.src;  // of what was tried
  const before = picture();
  const note = (name) => () => { window[name] = performance.now(); };
  document.addEventListener("change", note("asked"), { capture: true, once: true });
  window.answered = new Promise((resolve) => {
    new MutationObserver((_, observer) => {
      if (!picture() || picture() === before) return;
      observer.disconnect();
      resolve(performance.now());
    }).observe(answer, { childList: true, subtree: true, characterData: true });
  });
}"""


@contextmanager
def page_of(folder: Path) -> Iterator[str]:
    """A server of the page, and its address."""
    command = [sys.executable, "-m", "toolkit", "app", "--port", "0", "--projects", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        yield found[0]
        server.terminate()


def digits(folder: Path) -> dict[int, list[Path]]:
    """Images of the digits that the encoder of the page has not learned."""
    found: dict[int, list[Path]] = {digit: [] for digit in CLASSES}
    data = load_digits()
    for number, (pixels, digit) in enumerate(zip(data.images, data.target.tolist(), strict=True)):
        if digit in found:
            found[digit].append(folder / f"{digit}-{number}.png")
            Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((SIDE, SIDE)).save(found[digit][-1])
    return found


def measure(page: Any, images: dict[int, list[Path]], tried: list[Path]) -> tuple[float, list[float]]:
    """The seconds of training, and the milliseconds of each answer."""
    from playwright.sync_api import expect

    for digit, files in images.items():
        page.get_by_label("Name of a new class").fill(str(digit))
        page.get_by_role("button", name="Add the class", exact=True).click()
        page.locator("#classes").get_by_role("radio", name=re.compile(f"^{digit}")).check()
        page.locator("#image-files input[type=file]").set_input_files(files)
        expect(page.locator("#classes")).to_contain_text(f"{digit} ({len(files)})", timeout=60_000)
    page.evaluate(START)
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#report strong").first.wait_for(timeout=60_000)
    milliseconds = []
    for number, file in enumerate(tried):
        page.evaluate(WATCH)
        page.locator("#try-image input[type=file]").set_input_files(file)
        milliseconds.append(page.evaluate("async () => (await window.answered) - window.asked"))
        if number == 0:
            seconds = page.evaluate("async () => (await window.answered) - window.began") / 1000
    return seconds, milliseconds[1:]


def main(rounds: int = 5) -> None:
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"seconds from Train to an answer": [], "milliseconds of an answer": []}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        address = opened.enter_context(page_of(folder / "projects"))
        tools = opened.enter_context(sync_playwright())
        files = digits(folder)
        browser = tools.chromium.launch(executable_path=CHROMIUM)
        for number in range(rounds + 1):
            page = browser.new_page()
            page.goto(address)
            first = number * EXAMPLES
            images = {digit: of_class[first : first + EXAMPLES] for digit, of_class in files.items()}
            seconds, milliseconds = measure(page, images, files[CLASSES[0]][-TRIES:])
            page.close()
            print(f"round {number}: {seconds:.2f} s, {np.median(milliseconds):.0f} ms", flush=True)
            if number:
                found["seconds from Train to an answer"].append(seconds)
                found["milliseconds of an answer"] += milliseconds
        browser.close()
    medians = {name: float(np.median(values)) for name, values in found.items()}
    largest = {name: max(values) for name, values in found.items()}
    write_record("bench_app", {"rounds": rounds, "medians": medians, "largest": largest, "figures": found})


if __name__ == "__main__":
    if CHROMIUM is None:
        print("skipped: no chromium on this machine")
        sys.exit()
    main(*map(int, sys.argv[1:]))
