"""The site: built from the stored outputs without warnings, complete, accessible, and self-contained."""

import itertools
import json
import os
import posixpath
import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest
from attempts import tagged
from browser import barriers, needs_browser, severe, wait
from bs4 import BeautifulSoup
from conftest import NOTEBOOKS, ROOT, cells
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from workshop import servers

BUILD = ["sphinx", "-q", "-W", "--keep-going", "-n", "-E", "-c", "docs"]
LESSONS = [f"notebooks/{path.stem}.html" for path in NOTEBOOKS]
AROUND = [f"docs/{path.stem}.html" for path in sorted(ROOT.glob("docs/*.md"))]
AROUND += ["data/README.html", "benchmarks/README.html"]
# these pages show every kind of output; `make soak` looks at all of them
LOOKED_AT = ("docs/index.html", "docs/glossary.html", *(LESSONS[n - 1] for n in (2, 3, 5, 8)))
# what all kinds of outputs look like in the dark, these pages show
DARK_TOO = ("docs/index.html", LESSONS[2], LESSONS[4])
LOADED = "script[src], img[src], iframe[src], source[src], embed[src], link[href], object[data]"

every_lesson = pytest.mark.parametrize("name", LESSONS)


def mostly_later(names):
    return [name if name in LOOKED_AT else pytest.param(name, marks=pytest.mark.soak) for name in names]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", *BUILD, "-d", str(folder / "doctrees"), ".", str(folder / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    # _static holds the theme's templates; test_viewer.py looks at the viewer
    paths = [path for path in site.rglob("*.html") if not {"_static", "viewer"} & set(path.parts)]
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in paths
    }


def test_make_builds_what_is_tested_here():
    assert f"$(RUN) -m {' '.join(BUILD)} " in (ROOT / "Makefile").read_text()


def test_there_is_a_page_for_each_lesson_and_a_beginning(pages):
    assert {"index.html", *LESSONS, *AROUND} <= set(pages)
    navigation = {link["href"] for link in pages["docs/index.html"].select(".bd-docs-nav a")}
    assert len(navigation) == len(LESSONS + AROUND) - 1, "a page that no menu leads to"
    beginning = {link.get("href") for link in pages["docs/index.html"].select("article table a")}
    assert beginning == {f"../{name}" for name in LESSONS}
    assert "url=docs/index.html" in str(pages["index.html"])


def test_internal_links_and_anchors_lead_somewhere_and_external_ones_are_https(site, pages):
    ids = {name: {tag["id"] for tag in page.select("[id]")} for name, page in pages.items()}
    for name, page in pages.items():
        for tag in page.select("[href], [src]"):
            link = tag.get("href") or tag.get("src")
            parts = urlsplit(link or "")
            if parts.scheme or parts.netloc:
                assert re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/[^\s<>\"]*)?", link), f"{link} in {name}"
                continue
            path = unquote(posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path)))
            path = path if parts.path else name
            assert (site / path).is_file(), f"{link} in {name}"
            if parts.fragment and path in pages:
                assert unquote(parts.fragment) in ids[path], f"{link} in {name}"


def test_nothing_comes_from_another_host(site, pages):
    for name, page in pages.items():
        for tag in page.select(LOADED):
            link = tag.get("src") or tag.get("href") or tag.get("data")
            assert not re.match(r"(https?:)?//", link), f"{link} in {name}"
        assert "require.js" not in str(page) and "mathjax" not in str(page).lower(), name
    for path in site.rglob("*.css"):
        found = re.search(r"(@import|url\()\s*[\"']?(https?:)?//[^)]*", path.read_text(encoding="utf-8"))
        assert not found, f"{found[0]} in {path.name}"


def test_pages_can_be_read_by_everybody(pages):
    for name, page in pages.items():
        assert page.html["lang"] == "en-US", name
        levels = [int(heading.name[1]) for heading in page.find_all(re.compile("^h[1-6]$"))]
        assert levels.count(1) == 1, name
        assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels)), (name, levels)
        for image in page.find_all("img"):
            assert image.get("alt", "").strip(), f"{image['src']} in {name}"
        for svg in page.select(".picture svg"):
            assert svg["role"] == "img" and svg["aria-label"], name
        for table in page.select("article table"):
            # xarray lays out its tables of chunks in another table
            assert table.find("th"), f"{table.get_text()[:80]} in {name}"
        assert not page.select("article th:empty"), name
        identifiers = [tag["id"] for tag in page.select("[id]")]
        assert len(identifiers) == len(set(identifiers)), name
        if name != "index.html":
            assert page.select_one('#pst-skip-link a[href="#main-content"]'), name


@every_lesson
def test_alternative_texts_are_those_of_the_notebook(pages, name):
    lesson = (ROOT / name).with_suffix(".ipynb")
    outputs = [output for cell in cells(lesson, "code") for output in cell.outputs]
    written = [o["metadata"]["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
    assert [image["alt"] for image in pages[name].select(".cell_output img")] == written
    drawn = "".join(o.get("data", {}).get("image/svg+xml", "") for o in outputs)
    labels = re.findall('<svg[^>]* aria-label="(.*?)"', drawn)
    assert [svg["aria-label"] for svg in pages[name].select(".picture svg")] == labels


@every_lesson
def test_answers_stand_folded_below_their_exercises(pages, name):
    lesson = (ROOT / name).with_suffix(".ipynb")
    keys, answers = tagged(lesson, "check-"), tagged(ROOT / "solutions" / lesson.name, "solution-")
    folds = pages[name].select("details.answer")
    assert [fold["id"] for fold in folds] == [f"answer-{key}" for key in keys] and len(keys) >= 2
    for key, fold in zip(keys, folds, strict=True):
        assert not fold.has_attr("open")
        assert key in fold.summary.get_text()
        assert fold.find_previous("h3").get_text().startswith(f"Exercise {key}")
        assert f"○ {key}: not attempted yet" in fold.find_previous(class_="text_html").get_text()
        assert fold.select_one(f".tag_solution-{key} pre").get_text().strip() == answers[key].strip()
        assert f"✓ {key}: right." in fold.get_text()


def test_search_leads_to_lessons_and_not_to_the_same_answers_elsewhere(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    answers = {n for n, name in enumerate(index["docnames"]) if name.startswith("solutions/")}
    found = {n for ns in index["terms"].values() for n in (ns if isinstance(ns, list) else [ns])}
    assert found and not answers & found


def test_live_views_are_replaced_by_a_note(pages):
    text = "".join(page.get_text() for page in pages.values())
    assert "Map(center=" not in text.replace("ipyleaflet.Map(center=", "") and ":DynamicMap" not in text
    live = {name: len(pages[name].select("p.live")) for name in LESSONS}
    assert list(live.values()) == [0, 2, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]


@every_lesson
def test_the_notebook_can_be_downloaded_as_it_is(site, pages, name):
    links = [tag["href"] for tag in pages[name].select(".article-header-buttons a[href$='.ipynb']")]
    assert len(links) == 1
    copy = site / posixpath.normpath(posixpath.join("notebooks", links[0]))
    assert copy.read_bytes() == (ROOT / name).with_suffix(".ipynb").read_bytes()


@pytest.fixture(scope="module")
def address(site):
    with servers.serve_folder(site) as server:
        yield server.url


def with_each(driver, selector, call):
    return driver.execute_script(f"return [...document.querySelectorAll(arguments[0])].{call}", selector)


def set_colors(driver, theme):
    driver.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
    # a button that still fades has neither color
    driver.execute_script("document.getAnimations().forEach(animation => animation.finish())")


@needs_browser
@pytest.mark.parametrize("name", mostly_later(LESSONS + AROUND))
def test_axe_finds_no_barrier_and_the_console_no_error(driver, address, name):
    severe(driver)  # what came before
    driver.get(f"{address}/{name}")
    assert not severe(driver)
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded and all(link.startswith((address, "data:")) for link in loaded), loaded
    with_each(driver, "details", "forEach(fold => fold.open = true)")
    for theme in ("light", "dark") if name in DARK_TOO else ("light",):
        set_colors(driver, theme)
        assert not barriers(driver)


@needs_browser
def test_the_viewer_stands_below_the_site_and_shows_its_store(site, driver, address):
    if not (site / "viewer").is_dir():
        assert not os.environ.get("CI"), "`make test` should have built the viewer"
        pytest.skip("no viewer on this machine (`make viewer` builds it, with npm)")
    severe(driver)
    driver.get(f"{address}/docs/index.html")
    driver.find_element(By.CSS_SELECTOR, "a[href='../viewer/index.html']").click()
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#map[aria-busy=false]"))
    assert "SYNTHETIC" in driver.find_element(By.ID, "attributes").text
    assert driver.execute_script("return document.querySelector('#dimensions input').max") == "4"
    assert not severe(driver)


@needs_browser
@pytest.mark.parametrize("from_file", [False, True], ids=["http", "file"])
@pytest.mark.parametrize(
    ("word", "page"), [("Sankey", "notebooks/08-zonal-statistics.html"), ("ClosedClientError", "docs/symptoms.html")]
)
def test_search_finds_a_lesson_and_a_symptom(driver, site, address, from_file, word, page):
    driver.get(f"{site.as_uri() if from_file else address}/docs/index.html")
    driver.find_element(By.CSS_SELECTOR, ".bd-sidebar-primary .search-button-field").click()
    (field,) = wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "dialog input[type=search]"))
    field.send_keys(word + Keys.ENTER)
    links = wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#search-results li a"))
    assert page in links[0].get_attribute("href")


@needs_browser
@pytest.mark.parametrize("name", mostly_later(LESSONS))
def test_paper_shows_everything_but_the_navigation(driver, address, name):
    driver.get(f"{address}/{name}")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper = {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # A4 without its margins
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    try:
        for selector in (".bd-sidebar-primary", ".bd-header-article", ".bd-sidebar-secondary", ".prev-next-footer"):
            assert not any(tag.is_displayed() for tag in driver.find_elements(By.CSS_SELECTOR, selector)), selector
        assert driver.find_element(By.TAG_NAME, "h1").is_displayed()
        # Selenium would say of a closed fold, without a look at the page, that its content is not displayed
        seen = with_each(driver, "details .cell_input", "map(cell => cell.checkVisibility())")
        assert seen and all(seen)
        boxes = "pre, .table, .cell_output .output"
        assert not with_each(driver, boxes, "filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= paper["width"]
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@needs_browser
def test_paper_is_light_when_the_screen_is_dark(driver, address):
    driver.get(f"{address}/{LESSONS[0]}")
    set_colors(driver, "dark")
    driver.execute_script("addEventListener('beforeprint', () => window.ink = getComputedStyle(document.body).color)")
    driver.execute_cdp_cmd("Page.printToPDF", {})
    assert max(map(int, re.findall(r"\d+", driver.execute_script("return ink")))) < 100
    assert driver.execute_script("return document.documentElement.dataset.theme") == "dark"
