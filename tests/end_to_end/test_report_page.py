"""The page of a real run in a real browser, under its own content security policy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import commands
import pyarrow as pa
import pytest

from pipeline.report.checkpoints import find_checkpoints
from pipeline.report.page import write_page
from pipeline.runs.files import read_json, write_json
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import read_table, write_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SCREENSHOTS = commands.PROJECT / "test-output" / "report-page"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
MOST_BYTES = 5_000_000
MOST_SECONDS = 1.0

EXTRA = """\
calibration: sandbox:reserve:80
reserve: sandbox:reserve:60
watch_prompts: 20
probe_samples: 4
probe_sets: [in_distribution=sandbox:probe:80, look_alike=sandbox:look_alike:8]
scorers: [gold, refusal, length, loops, kl, nll_base, diversity, likelihood]
batteries: [constitutions/batteries/sandbox/harm.txt]
"""

PAYLOAD = (
    "<script>window.pwned = 1</script></script><script>window.pwned = 2</script>"
    "<img src=x onerror=\"window.pwned = 3\"><svg onload='window.pwned = 4'></svg>"
    '"><a href="javascript:window.pwned = 5" autofocus onfocus=window.pwned=6>a</a>'
    "</textarea></title></style></details><!-- ]]> <iframe srcdoc='<script>parent.pwned=7</script>'></iframe>"
    "{{ [7] * 3 }} {% raw %} ${[7]*3} \\u003cscript\\u003e &lt;b&gt; \u202egnp.exe\u202c \u2066x\u2069\u2028\x00"
)
VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => window.violations.push(event.violatedDirective));
"""


class Opened(NamedTuple):
    """A page in the browser, what its console said, and what it asked the network for."""

    page: Page
    console: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        why = "no chromium is installed (Debian: apt-get install chromium)"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    if not os.environ.get("CI"):
        pytest.importorskip("playwright", reason="pip install '.[browser-tests]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    """Two rounds of `iterate`, which wrote the page."""
    folder = tmp_path_factory.mktemp("page")
    recipe = folder / "small.yaml"
    replaced = {line.partition(":")[0] for line in EXTRA.splitlines()}
    kept = [line for line in commands.SMALL.splitlines() if line.partition(":")[0] not in replaced]
    recipe.write_text("\n".join(kept).format(rounds=2) + "\n" + EXTRA)
    commands.run("iterate", "--config", recipe, "--run_dir", folder / "run")
    return folder / "run"


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_(path: Path, *, width: int = 1200, scheme: Any = "light") -> Opened:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        opened = Opened(page, [], [])
        page.on("console", lambda message: opened.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: opened.console.append(f"error: {error}"))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.add_init_script(VIOLATIONS)
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        return opened

    yield open_
    for context in contexts:
        context.close()


def test_iterate_wrote_it_whole_and_small(real_run: Path, open_page: Callable[..., Opened]) -> None:
    report = real_run / "report.html"
    assert report.stat().st_size < MOST_BYTES
    page, console, requests = open_page(report)
    assert console == []
    assert requests == [report.resolve().as_uri()]  # nothing but the file itself
    assert page.evaluate("window.violations") == []
    assert [item.inner_text() for item in page.locator(".rounds .badge").all()] == ["round 0", "round 1", "round 2"]
    order = [section.get_attribute("id") for section in page.locator("main section").all()]
    assert order == [
        *("plane", "survival", "shift", "slices", "alarms", "watch", "likelihood", "forecast", "refusal"),
        *("critiques", "critic", "outcomes", "scores", "samples", "constitution", "cost", "provenance"),
    ]
    for link in page.locator("main a[href$='.csv']").all():
        csv = real_run / (link.get_attribute("href") or "")
        assert len(csv.read_text().splitlines()) > 1, csv


def test_it_opens_at_once(real_run: Path, open_page: Callable[..., Opened]) -> None:
    page = open_page(real_run / "report.html").page
    session = page.context.new_cdp_session(page)
    # Seconds of the page's own thread: those by the clock would count what else the machine does.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = thread_seconds(session)
    page.reload(wait_until="domcontentloaded")
    assert 0 < thread_seconds(session) - before < MOST_SECONDS


def thread_seconds(session: Any) -> float:
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["ThreadTime"])


def test_every_figure_is_drawn(real_run: Path, open_page: Callable[..., Opened]) -> None:
    page = open_page(real_run / "report.html").page
    charts = page.locator(".chart").all()
    assert len(charts) > 15
    for chart in charts:
        box = chart.locator("svg").bounding_box()
        assert box is not None and box["width"] > 150 and box["height"] > 40
        marks = chart.locator("svg [role='graphics-symbol']:not([aria-roledescription='axis'])")
        assert marks.count() > 0, chart.get_attribute("id")
        assert chart.get_attribute("role") == "graphics-document" and chart.get_attribute("aria-label")


def drawn_names(page: Page) -> list[str]:
    return [name for name in page.locator("#shift svg text").all_text_contents() if name.startswith("round")]


def test_checkpoints_are_hidden_by_mouse_and_by_keyboard(real_run: Path, open_page: Callable[..., Opened]) -> None:
    page = open_page(real_run / "report.html").page
    assert sorted(drawn_names(page)) == ["round 1", "round 2"]
    boxes = page.locator("#shown input")
    boxes.nth(1).click()
    page.wait_for_function("![...document.querySelectorAll('#shift svg text')].some(t => t.textContent == 'round 1')")
    assert drawn_names(page) == ["round 2"]
    boxes.nth(2).focus()
    page.keyboard.press("Space")
    page.wait_for_function("![...document.querySelectorAll('#shift svg text')].some(t => t.textContent == 'round 2')")
    boxes.nth(1).focus()
    page.keyboard.press("Space")
    page.wait_for_function("[...document.querySelectorAll('#shift svg text')].some(t => t.textContent == 'round 1')")
    assert drawn_names(page) == ["round 1"]


def test_samples_are_folded_until_asked_for(real_run: Path, open_page: Callable[..., Opened]) -> None:
    page = open_page(real_run / "report.html").page
    samples = page.locator(".sample:not([hidden])")
    assert page.locator(".sample[open]").count() == 0
    assert not page.locator(".sample .body").first.is_visible()
    first = samples.first
    first.locator("> summary").focus()
    page.keyboard.press("Enter")
    assert first.locator(".pair").is_visible()
    first.locator("> summary").click()
    assert not first.locator(".pair").is_visible()
    listed = samples.count()
    assert {one.get_attribute("data-label") for one in samples.all()} == {"round 2"}
    page.locator("#pick select[name=kind]").select_option("worst")
    assert 0 < samples.count() < listed
    assert {one.get_attribute("data-kind") for one in samples.all()} == {"worst"}
    assert page.locator("#listed").inner_text() == f"{samples.count()} samples"
    page.locator("#unfold").focus()
    page.keyboard.press("Enter")
    assert page.locator(".sample[open]:not([hidden])").count() == samples.count()
    page.keyboard.press("Enter")
    assert page.locator(".sample[open]").count() == 0


def test_a_point_of_a_chart_leads_to_its_sample(real_run: Path, open_page: Callable[..., Opened]) -> None:
    page = open_page(real_run / "report.html").page
    point = page.locator("#survival svg path[role='graphics-symbol'][aria-label*='#sample-']").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("location.hash.startsWith('#sample-')")
    target = page.locator(page.evaluate("location.hash"))
    target.locator(".pair").wait_for(state="visible")
    assert page.evaluate("document.activeElement.parentElement.id") == target.get_attribute("id")
    # A sample that the list hides is found all the same.
    hidden = page.locator(".sample[hidden]").first
    page.evaluate("id => { location.hash = id }", hidden.get_attribute("id"))
    page.wait_for_selector(".sample[hidden]", state="detached")
    assert page.locator(page.evaluate("location.hash")).get_attribute("open") is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_widths_and_colours(real_run: Path, open_page: Callable[..., Opened], width: int, scheme: str) -> None:
    page = open_page(real_run / "report.html", width=width, scheme=scheme).page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in page.locator(".chart svg").all():
        box = chart.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width + 1
    paper, ink = page.evaluate("(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))")
    lightness = [sum(map(int, color[4:-1].split(","))) for color in (paper, ink)]
    assert (lightness[0] > lightness[1]) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(real_run: Path, open_page: Callable[..., Opened], scheme: str) -> None:
    import axe_playwright_python

    source = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
    page = open_page(real_run / "report.html", scheme=scheme).page
    page.locator(".sample:not([hidden]) > summary").first.click()
    page.evaluate(source)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = {one["id"]: one["nodes"][0]["html"] for one in found if one["impact"] in ("serious", "critical")}
    assert serious == {}, json.dumps(serious, indent=2)


def test_print_has_no_controls(real_run: Path, open_page: Callable[..., Opened]) -> None:
    page = open_page(real_run / "report.html").page
    page.emulate_media(media="print")
    assert not page.locator("#shown").is_visible()
    assert page.locator("#plane h2").is_visible()


# -- what models wrote ---------------------------------------------------------------------------------------


def poison(run: RunDir) -> None:
    """Put the payload wherever a model, a person or a name can put text."""
    for round_ in (0, 1, 2):
        for path in [run.scores(round_), run.scores(round_).with_name("samples.parquet")]:
            rewrite(path, ("response", "slice"))
        if round_:
            texts = ("response", "slice", "critique", "revision", "principle_id", "final")
            rewrite(run.stage_dir(round_, "refine") / "refinements.parquet", texts)
            constitution = run.stage_dir(round_, "refine") / "constitution.txt"
            constitution.write_text(f"# round {round_}\n{PAYLOAD}\n")
    rewrite(run.again_scores(), ("slice",))
    rewrite(run.again_scores().with_name("samples.parquet"), ("slice", "response"))
    for path in sorted(run.path.glob("round-*/alarm.json")):
        path.write_text(path.read_text().replace('"slice": null', json.dumps({"slice": PAYLOAD})[1:-1]))
    write_json(run.resolved, read_json(run.resolved) | {"model_name_or_path": PAYLOAD, "scorers": ["refusal"]})
    write_json(run.inputs, {PAYLOAD: PAYLOAD})
    entry = {"at": PAYLOAD, "after_round": 1, "reason": PAYLOAD, "changes": [PAYLOAD, "+" + PAYLOAD]}
    run.amendments.write_text(json.dumps(entry) + "\n")


def rewrite(path: Path, columns: tuple[str, ...]) -> None:
    """Append the payload to columns of a table, and to the prompts, if it has them."""
    table = read_table(path)
    rows = table.to_pylist()
    for row in rows:
        for name in columns:
            if row.get(name) is not None:
                row[name] += PAYLOAD
        for message in row.get("prompt") or ():
            message["content"] += PAYLOAD
    write_table(path, [pa.Table.from_pylist(rows, schema=table.schema)], table.schema)


@pytest.fixture(scope="module")
def hostile(real_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "<script>window.pwned=8<!--\u202e{{[7]*3}}'\"&"
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(real_run, folder / name, symlinks=True)
    shutil.copytree(real_run, folder / "other", symlinks=True)
    poison(RunDir(folder / name))
    write_page(find_checkpoints([str(folder / name)]), folder / name / "report.html")
    write_page(find_checkpoints([str(folder / name), f"{folder / 'other'}:1"]), folder / "both.html")
    return folder


@pytest.mark.parametrize("which", ["*/report.html", "both.html"])
def test_what_models_wrote_is_text(hostile: Path, open_page: Callable[..., Opened], which: str) -> None:
    (path,) = [found for found in hostile.glob(which) if found.parent.name != "other"]
    page, console, requests = open_page(path)
    page.locator("#unfold").click()
    assert console == []
    assert len(requests) == 1
    assert page.evaluate("window.violations") == []
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.locator("script").count() == 2
    assert page.locator("img, iframe, object, embed, textarea, link, base, b:has(*)").count() == 0
    handlers = "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).map(a => a.name)"
    assert not [name for name in page.evaluate(handlers) if name.startswith("on")]
    assert page.locator("a[href^='javascript:']").count() == 0
    text = page.locator("body").inner_text()
    assert "{{ [7] * 3 }}" in text and "[7, 7, 7]" not in text
    assert "<script>window.pwned = 1</script>" in text
    assert "⟨U+202E⟩gnp.exe" in text
    assert not {"\u202e", "\u2066", "\x00"} & set(page.content())


def test_the_policy_would_stop_a_script_that_got_in(hostile: Path, open_page: Callable[..., Opened]) -> None:
    opened = open_page(hostile / "both.html")
    opened.page.evaluate(
        """() => {
        const script = document.createElement('script');
        script.textContent = 'window.pwned = 1';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.pwned = 2">');
        document.body.insertAdjacentHTML('beforeend', '<style>body { color: red }</style>');
        document.querySelector('form').submit();
        setTimeout('window.pwned = 3', 0);
        }"""
    )
    opened.page.wait_for_function("window.violations.length >= 5")
    assert opened.page.evaluate("typeof window.pwned") == "undefined"
    stopped = {"script-src-elem", "style-src-elem", "img-src", "form-action", "script-src"}
    assert stopped <= set(opened.page.evaluate("window.violations"))
