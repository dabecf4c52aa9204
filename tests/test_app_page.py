"""The page in a real browser, as people use it: teach, try, take away; by keyboard, on a telephone, side by side."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from test_app import COLORS, HERTZ, TEXTS, as_flac, as_png, examples_of, picture

from toolkit.app import UPLOADS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium on this machine: apt-get install chromium", allow_module_level=True)
slow = pytest.mark.slow  # for all but one journey
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
FAKE_DEVICES = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
SUFFIXES = {"image": ".png", "audio": ".flac"}
KINDS = {"image": "Images", "audio": "Sounds", "text": "Texts"}
MILLISECONDS = 60_000
LOOPBACK = {"127.0.0.1", "localhost", "None", "b''"}
PICTURES = os.environ.get("APP_PICTURES")  # folder for pictures of each step, which docs/app.md shows
# Python runs it when the server starts: it notes which hosts the server looks up and connects to.
SITECUSTOMIZE = """
import os, sys

file = os.open(os.environ["CONNECTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        host = arguments[0] if event == "socket.getaddrinfo" else arguments[1][0]
        os.write(file, f"{host}\\n".encode())

sys.addaudithook(note)
"""


class Server:
    """A server of the page, in a process of its own."""

    def __init__(self, folder: Path, *flags: str, environment: dict[str, str] | None = None):
        self.folder, self.flags, self.port = folder, flags, 0
        self.connections = folder / "connections.txt"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        path = os.pathsep.join([str(folder), str(REPOSITORY)])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}  # as users start it
        self.environment = {**kept, "CONNECTIONS": str(self.connections), "PYTHONPATH": path, **(environment or {})}
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "toolkit", "app", "--projects", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *self.flags],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://[\d.]+:(\d+)", line):
                self.url, self.port = found[0], int(found[1])
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        raise AssertionError(f"the server ended with {self.process.wait()}")

    def hosts(self) -> set[str]:
        """The hosts that the server has looked up or connected to."""
        return set(self.connections.read_text().splitlines())

    def stop(self, number: int = signal.SIGTERM) -> None:  # shells let processes in the background ignore SIGINT
        self.process.send_signal(number)
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FAKE_DEVICES)
        yield found
        found.close()


class Visitor:
    """One browser with the page open."""

    def __init__(self, browser, server: Server, kind: str = "image", **options):
        self.context = browser.new_context(permissions=["camera", "microphone"], **options)
        self.page, self.kind = self.context.new_page(), kind
        self.page.set_default_timeout(MILLISECONDS)
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(server.url)
        self.choose(self.page.locator("#kind"), KINDS[kind])

    def choose(self, group, name: str) -> None:
        group.get_by_role("radio", name=re.compile(f"^{re.escape(name)}")).check()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def expect(self, selector: str, text: str) -> None:
        sync_api.expect(self.page.locator(selector)).to_contain_text(text, timeout=MILLISECONDS)

    def add_class(self, name: str) -> None:
        self.page.get_by_label("Name of a new class").fill(name)
        self.press("Add the class")
        self.expect("#classes", f"{name} (0)")
        self.choose(self.page.locator("#classes"), name)

    def add_files(self, files: list[Path]) -> None:
        self.page.locator(f"#{self.kind}-files input[type=file]").set_input_files(files)

    def teach(self, folder: Path, count: int = 4) -> None:
        """Add three classes with examples."""
        for name, examples in examples_of(self.kind, count).items():
            self.add_class(name)
            if self.kind == "text":
                self.page.get_by_label("Texts, one on each line").fill("\n".join(each.content for each in examples))
                self.press("Add the texts to the chosen class")
            else:
                files = []
                for number, each in enumerate(examples):
                    files.append(folder / f"{name}-{number}{each.suffix}")
                    files[-1].write_bytes(each.content)
                self.add_files(files)
            self.expect("#classes", f"{name} ({count})")

    def train(self) -> None:
        self.press("Train")
        self.expect("#report", "cross-validation")

    def try_file(self, path: Path) -> None:
        self.page.locator(f"#try-{self.kind} input[type=file]").set_input_files(path)

    def picture(self, name: str) -> None:
        if PICTURES:
            self.page.wait_for_timeout(500)  # for what still moves
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)

    def download(self, name: str, path: Path) -> None:
        with self.page.expect_download() as started:
            self.page.get_by_role("button", name=name).or_(self.page.get_by_role("link", name=name)).first.click()
        started.value.save_as(path)


@pytest.fixture
def visit(browser, server):
    visitors = []

    def enter(kind: str = "image", **options) -> Visitor:
        visitors.append(Visitor(browser, server, kind, **options))
        return visitors[-1]

    yield enter
    for visitor in visitors:
        visitor.context.close()


@contextmanager
def on_a_server(browser, folder: Path, kind: str, **options):
    """A visitor of a server of its own, and that server."""
    server = Server(folder / "projects", **options)
    try:
        visitor = Visitor(browser, server, kind)
        yield server, visitor
        visitor.context.close()
    finally:
        server.stop()


def example_file(folder: Path, kind: str, label: str) -> Path:
    """A new example of a class, as a file."""
    content = as_png(picture(COLORS[label], 99)) if kind == "image" else as_flac(HERTZ[label], 99)
    path = folder / f"new{SUFFIXES[kind]}"
    path.write_bytes(content)
    return path


def other_file(folder: Path, kind: str) -> Path:
    """An example of none of the classes."""
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::6] = 255
    path = folder / f"other{SUFFIXES[kind]}"
    path.write_bytes(as_png(stripes) if kind == "image" else as_flac(3600, 0))
    return path


@pytest.mark.parametrize("kind", ["image", pytest.param("audio", marks=slow), pytest.param("text", marks=slow)])
def test_teach_try_take_away_and_come_back(kind, visit, server, tmp_path):
    visitor = visit(kind)
    visitor.picture(f"{kind}-1-empty")
    visitor.teach(tmp_path)
    visitor.picture(f"{kind}-2-examples")
    visitor.train()
    visitor.picture(f"{kind}-3-trained")
    names = list(examples_of(kind, 1))
    if kind == "text":
        asked = TEXTS["food"][0]
        visitor.page.get_by_label("A text", exact=True).fill(asked)
        visitor.expect("#label .label", "food")
    else:
        asked = str(example_file(tmp_path, kind, names[1]))
        visitor.try_file(Path(asked))
        visitor.expect("#label .label", names[1])
        visitor.try_file(other_file(tmp_path, kind))
        visitor.expect("#label .label", "none of these")
        visitor.try_file(Path(asked))
        visitor.expect("#label [role=status]", names[1])
    shown = visitor.page.locator("#answer .bar .value").all_inner_texts()
    visitor.press("Why?")
    visitor.expect("#reason-words", "Red")
    visitor.picture(f"{kind}-4-answer")
    assert visitor.page.get_by_label(re.compile("share", re.IGNORECASE)).count() == 0  # it would send to a Hub
    visitor.press("Make the file")
    visitor.download("Download it", tmp_path / "taken.zip")
    with zipfile.ZipFile(tmp_path / "taken.zip") as archive:
        archive.extractall(tmp_path / "taken")
    command = [sys.executable, str(tmp_path / "taken" / "onnx" / "predict.py"), asked, "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    label, probability, _ = done.stdout.splitlines()[0].split("\t")
    assert label == ("food" if kind == "text" else names[1])
    assert f"{float(probability):.0%}" in shown
    visitor.page.get_by_role("tab", name="Projects").click()
    visitor.page.get_by_label("Name", exact=True).fill("My first")
    visitor.press("Save")
    visitor.expect("#status", "Saved the project as My first")
    visitor.picture(f"{kind}-5-projects")
    visitor.press("Export the project")
    visitor.download("Download the project", tmp_path / "project.zip")
    visitor.press("Begin an empty project")
    visitor.expect("#status", "empty project")
    visitor.press("Undo")
    visitor.expect("#status", "Undone: back to the previous project")
    visitor.press("Begin an empty project")
    visitor.expect("#status", "empty project")
    visitor.page.get_by_label("Saved projects").click()
    visitor.page.get_by_role("option", name="My first").click()
    visitor.press("Open")
    visitor.expect("#status", "The project is open")
    visitor.page.get_by_role("tab", name="Teach").click()
    for name in names:
        visitor.expect("#classes", f"{name} (4)")
    other = visit("text" if kind == "image" else "image")
    other.page.get_by_role("tab", name="Projects").click()
    other.page.locator("#open-file input[type=file]").set_input_files(tmp_path / "project.zip")
    other.expect("#status", "The project is open")
    other.page.get_by_role("tab", name="Teach").click()
    other.expect("#classes", f"{names[0]} (4)")
    outside = [
        url
        for url in visitor.requests + other.requests
        if not re.match(r"(https?|wss?)://127\.0\.0\.1:|data:|blob:", url)
    ]
    assert outside == []
    assert server.hosts() <= LOOPBACK


def test_a_url_in_place_of_a_file_is_not_fetched(browser, server):
    request = browser.new_context().request
    config = request.get(f"{server.url}/config").json()
    ids = {each["props"].get("elem_id"): each["id"] for each in config["components"]}
    event = next(each for each in config["dependencies"] if ids["try-image"] in each["inputs"])
    for url in ("http://example.org/a.png", "http://127.0.0.1:9/a.png"):
        values = {ids["try-image"]: {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}}
        body = {
            "data": [values.get(each) for each in event["inputs"]],
            "fn_index": event["id"],
            "session_hash": "a" + str(len(url)),
        }
        assert request.post(f"{server.url}/gradio_api/queue/join", data=body).ok
        answer = request.get(f"{server.url}/gradio_api/queue/data?session_hash={body['session_hash']}").text()
        assert '"success":false' in answer
        # What is redirected is fetched by the browser that asks for it.
        redirected = request.get(f"{server.url}/gradio_api/file={url}", max_redirects=0)
        assert redirected.status in (302, 307, 403)
    assert server.hosts() <= LOOPBACK


def record(component) -> None:
    """Start the camera or the microphone of a component."""
    component.get_by_role("button", name=re.compile("record|capture|start", re.IGNORECASE)).first.click()


@slow
def test_a_camera_and_a_microphone(visit, tmp_path):
    visitor = visit("image")
    visitor.add_class("screen")
    camera = visitor.page.locator("#camera")
    camera.get_by_role("button").first.click()  # access to the camera
    record(camera)
    three = re.compile(r"screen \(([3-9]|\d\d)\)")
    sync_api.expect(visitor.page.locator("#classes")).to_contain_text(three, timeout=MILLISECONDS)
    visitor.page.reload()  # ends the recording
    visitor.add_class("red")
    visitor.add_files([example_file(tmp_path, "image", "red")])
    visitor.expect("#classes", "red (1)")
    visitor.press("Train")
    visitor.expect("#report", "Only one distinct example of red")
    live = visitor.page.locator("#live-camera")
    live.get_by_role("button").first.click()
    record(live)
    visitor.expect("#label .label", "screen")
    visitor = visit("audio")
    for name in ("beep", "more"):
        visitor.add_class(name)
        microphone = visitor.page.locator("#microphone")
        record(microphone)
        time.sleep(2)
        microphone.get_by_role("button", name=re.compile("stop", re.IGNORECASE)).first.click()
        visitor.expect("#classes", f"{name} (1)")
    visitor.press("Train")
    visitor.expect("#report", "Only one distinct example of")
    record(visitor.page.locator("#live-microphone"))
    visitor.expect("#answer", "%")


@slow
def test_every_deletion_can_be_undone(visit, tmp_path):
    visitor = visit("text")
    visitor.teach(tmp_path, 2)
    visitor.choose(visitor.page.locator("#classes"), "sport")
    visitor.choose(visitor.page.locator("#text-examples"), TEXTS["sport"][0])
    visitor.press("Remove the chosen example")
    visitor.expect("#classes", "sport (1)")
    visitor.press("Remove all examples of the class")
    visitor.expect("#classes", "sport (0)")
    for count in (1, 2):
        visitor.press("Undo")
        visitor.expect("#classes", f"sport ({count})")


@slow
def test_by_keyboard_alone(visit):
    visitor = visit("text")
    keyboard = visitor.page.keyboard

    def go_to(selector: str) -> None:
        for _ in range(200):
            if visitor.page.evaluate(f"document.activeElement.closest({selector!r}) !== null"):
                return
            keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached with the Tab key")

    for name in ("weather", "sport"):
        go_to("#new-class")
        keyboard.type(name)
        keyboard.press("Enter")
        visitor.expect("#classes", f"{name} (0)")
    for place, name in enumerate(("weather", "sport")):
        go_to(f"#classes label:nth-of-type({place + 1})")
        keyboard.press("Space")
        go_to("#typed")
        keyboard.type(TEXTS[name][0])
        keyboard.press("Enter")
        keyboard.type(TEXTS[name][1])
        go_to("#add-texts")
        keyboard.press("Enter")
        visitor.expect("#classes", f"{name} (2)")
    go_to("#train")
    keyboard.press("Enter")
    visitor.expect("#report", "cross-validation")
    go_to("#try-text")
    keyboard.type(TEXTS["sport"][0])
    visitor.expect("#label .label", "sport")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@slow
def test_no_serious_fault_of_accessibility(scheme, visit, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    for kind in KINDS:
        visitor = visit(kind, color_scheme=scheme)
        visitor.teach(tmp_path, 2)
        visitor.train()
        for tab in ("Teach", "Projects", "Lessons"):
            visitor.page.get_by_role("tab", name=tab).click()
            found = Axe().run(visitor.page).response["violations"]
            serious = [each for each in found if each["impact"] in ("serious", "critical")]
            assert [(each["id"], each["nodes"][0]["html"][:200]) for each in serious] == []


@slow
def test_on_a_telephone(visit, tmp_path):
    visitor = visit("image", viewport={"width": 390, "height": 844}, color_scheme="dark")
    visitor.teach(tmp_path, 2)
    visitor.train()
    visitor.try_file(example_file(tmp_path, "image", "red"))
    visitor.expect("#label .label", "red")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    visitor.picture("telephone")


@slow
def test_two_visitors_do_not_see_each_other(visit):
    first, second = visit("text"), visit("text")
    first.add_class("mine")
    second.add_class("yours")
    for visitor, own, foreign in ((first, "mine", "yours"), (second, "yours", "mine")):
        visitor.page.reload()
        visitor.choose(visitor.page.locator("#kind"), "Texts")
        visitor.expect("#classes", f"{own} (0)")
        assert foreign not in visitor.page.locator("#classes").inner_text()


@slow
def test_what_cannot_be_added_is_said_and_nothing_is_lost(visit, tmp_path):
    visitor = visit("image")
    visitor.add_class("x<img src=x onerror=alert(1)>")
    good = example_file(tmp_path, "image", "red")
    broken, large = tmp_path / "broken.png", tmp_path / "large.png"
    broken.write_bytes(b"no image")
    large.write_bytes(bytes(50 * 2**20 - 1000))
    visitor.add_files([good, broken])
    visitor.expect("#classes", "(1)")
    sync_api.expect(visitor.page.get_by_text("broken.png: this is no image").first).to_be_visible()
    visitor.add_files([large])
    too_large = visitor.page.get_by_text("large.png: 50 MB, at most 25").first
    sync_api.expect(too_large).to_be_visible(timeout=MILLISECONDS)
    assert visitor.page.locator("img[src=x]").count() == 0


@slow
def test_many_classes_and_examples(visit):
    visitor = visit("text")
    visitor.page.get_by_role("button", name="Paste a table").click()
    lines = [f"word{label} text number {number}\tclass {label}" for label in range(200) for number in range(10)]
    visitor.page.get_by_label("One example per line: text, tab, label").fill("\n".join(lines))
    visitor.press("Add the table")
    visitor.expect("#classes", "class 199 (10)")
    visitor.page.get_by_label("Name of a new class").fill("one more")
    visitor.press("Add the class")
    sync_api.expect(visitor.page.get_by_text("there are already 200 classes").first).to_be_visible()
    visitor.train()
    visitor.page.get_by_label("A text", exact=True).fill("word17 text number 3")
    visitor.expect("#answer", "less probable classes")


@slow
def test_the_server_is_killed_in_the_middle(browser, tmp_path):
    with on_a_server(browser, tmp_path, "image") as (server, visitor):
        visitor.teach(tmp_path, 2)
        files = [tmp_path / f"more-{number}.png" for number in range(30)]
        for number, file in enumerate(files):
            file.write_bytes(as_png(picture(COLORS["blue"], 100 + number)))
        visitor.add_files(files)
        visitor.press("Train")
        visitor.page.evaluate("window.isOld = true")
        server.stop(signal.SIGKILL)
        assert list((server.folder / UPLOADS).rglob("*.png"))
        server.start()
        visitor.page.wait_for_function("!window.isOld")  # the page has noticed, and loaded itself again
        for name in ("red", "green"):
            visitor.expect("#classes", f"{name} (2)")
        visitor.expect("#classes", "blue (")
        visitor.train()
        server.stop()
        assert not (server.folder / UPLOADS).exists()
        server.start()
        visitor.page.wait_for_timeout(5000)  # for a page that notices; one on which nothing goes on may not
        visitor.choose(visitor.page.locator("#classes"), "green")
        visitor.add_files(files[:1])
        visitor.expect("#classes", "green (3)")


@slow
def test_all_that_a_visitor_has_given_is_deleted(browser, tmp_path):
    with on_a_server(browser, tmp_path, "image") as (server, visitor):
        visitor.teach(tmp_path, 2)
        visitor.train()
        visitor.try_file(example_file(tmp_path, "image", "red"))
        visitor.expect("#label", "red")
        visitor.press("Make the file")
        sync_api.expect(visitor.page.locator("#taken")).to_be_visible()
        visitor.page.get_by_role("tab", name="Projects").click()
        visitor.press("Delete all my data")
        sync_api.expect(visitor.page.get_by_text("tick “I am sure” first").first).to_be_visible()
        assert list(server.folder.rglob("*.zip"))
        assert list(server.folder.rglob("*.png"))
        visitor.page.get_by_role("tab", name="Teach").click()
        visitor.expect("#label", "red")
        sync_api.expect(visitor.page.locator("#taken")).to_be_visible()
        visitor.page.get_by_role("tab", name="Projects").click()
        visitor.page.get_by_label("I am sure").check()
        visitor.press("Delete all my data")
        visitor.expect("#status", "Deleted all your data")
        assert [*server.folder.rglob("*.zip"), *server.folder.rglob("*.png")] == []
        visitor.page.get_by_role("tab", name="Teach").click()
        sync_api.expect(visitor.page.locator("#label")).to_have_text("")
        sync_api.expect(visitor.page.locator("#taken")).to_be_hidden()


@slow
def test_a_classifier_is_pushed_to_a_hub(browser, hub, tmp_path):
    with on_a_server(browser, tmp_path, "text", environment=hub.environment) as (_, visitor):
        visitor.teach(tmp_path)
        visitor.train()
        for name in ("no name", "me/taught"):
            visitor.page.get_by_label("Name of a repository").fill(name)
            visitor.press("Push it to the Hub")
            if name == "no name":
                sync_api.expect(visitor.page.get_by_text("expected a name like org/name").first).to_be_visible()
        visitor.expect("#pushed", "me/taught")
    done = hub.run("fewshot", "predict", "--encoder", "me/taught", TEXTS["sport"][0])
    assert done.returncode == 0, done.stderr
    assert "sport" in done.stdout


@slow
def test_a_password_is_asked_for(browser, tmp_path):
    server = Server(tmp_path / "projects", "--password", "open sesame")
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_label("username").fill("user")
        page.get_by_label("password").fill("open sesame")
        page.get_by_role("button", name="Login").click()
        sync_api.expect(page.get_by_role("heading", name="Teach a classifier")).to_be_visible(timeout=MILLISECONDS)
        assert context.request.get(f"{server.url}/config").status == 200
        assert browser.new_context().request.get(f"{server.url}/config").status == 401
    finally:
        context.close()
        server.stop()


@slow
def test_lessons(visit, tmp_path):
    visitor = visit("image")
    visitor.teach(tmp_path, 4)
    visitor.page.get_by_role("tab", name="Lessons").click()
    visitor.page.locator("#lesson-image input[type=file]").set_input_files(example_file(tmp_path, "image", "red"))
    sync_api.expect(visitor.page.locator("#convolved img")).to_be_visible()
    visitor.press("Show the attention")
    sync_api.expect(visitor.page.locator("#attention img")).to_be_visible()
    visitor.press("Show the nearest words")
    visitor.expect("#nearest", "cosine")
    visitor.press("Compare")
    visitor.expect("#bought", "random weights")
    visitor.picture("lessons")
