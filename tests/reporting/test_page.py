"""Pages and summaries of sections, and the report's page in a browser."""

import pytest

from code_common.reporting.page import Section, Table, to_html, to_markdown

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def test_pages_escape_and_summaries_keep_their_columns():
    sections = [Section("A & B", "1 < 2", [Table(["name", "<b>"], [["a|b", "<script>"]])])]
    html = to_html("<title>", sections)
    assert "<script>a" not in html and "&lt;script&gt;" in html and 'id="a-b"' in html
    assert to_markdown("t", sections).splitlines()[-1] == "| a\\|b | &lt;script> |"


def test_folded_sections_are_no_part_of_the_summary():
    sections = [Section("Options", tables=[Table(["option"], [["r1"]])], folded=True)]
    assert to_markdown("t", sections) == "# t\n"
    assert "<details>" in to_html("t", sections)


@pytest.fixture
def page(browser, experiment):
    """The report at desktop width; nothing but itself may be loaded, nothing may complain."""
    page = browser.new_page(viewport=DESKTOP)
    problems = []

    def check_request(request):
        if not request.url.startswith(("file:", "data:")):
            problems.append(request.url)

    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", check_request)
    page.goto((experiment.root / "report.html").as_uri())
    yield page
    assert not problems
    page.close()


def scroll_width(page):
    return page.evaluate("document.documentElement.scrollWidth")


def test_all_pictures_are_shown_and_described(page):
    images = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
    assert len(images) > 25 and all(width > 0 and alt for width, alt in images)


def test_a_click_on_a_head_sorts_and_another_turns_the_order(page):
    heads = page.locator("#test-images th button")
    column = heads.all_inner_texts().index("detection f1")

    def values():
        cells = page.locator(f"#test-images tbody td:nth-child({column + 1})")
        return [float(text) for text in cells.all_inner_texts()]

    before = values()
    heads.nth(column).click()
    assert values() == sorted(before)
    heads.nth(column).click()
    assert values() == sorted(before, reverse=True)


def test_a_click_enlarges_a_picture(page):
    picture = page.locator(".panels button").first
    small = picture.bounding_box()["width"]
    picture.click()
    assert picture.bounding_box()["width"] > 2 * small


def test_options_are_folded_until_a_click(page):
    option = page.get_by_text("crf_sigma_xy")
    assert not option.is_visible()
    page.locator("summary").click()
    assert option.is_visible()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_report_fits_the_screen(page, size):
    page.locator("summary").click()
    page.set_viewport_size(size)
    assert scroll_width(page) == size["width"]
    right_edges = page.evaluate(
        "[...document.querySelectorAll('h1, h2, p, figure, img, svg')]"
        ".map(e => e.getBoundingClientRect().right)"
    )
    assert max(right_edges) <= size["width"] + 1
