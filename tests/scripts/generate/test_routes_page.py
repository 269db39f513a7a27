"""docs/routes: current, with every route and an example of each."""

import re

from scripts.generate.reference import routes


def test_pages_of_routes_are_what_the_document_says():
    files = {path.name: path.read_text() for path in routes.FOLDER.glob("*.md")}
    assert files == routes.pages(), "run `make routes`"


def test_every_route_has_a_section_with_an_example_and_a_line_in_the_list():
    pages = routes.pages()
    listed = re.findall(r"^\| \[`(\w+ [^`]+)`\]\(([\w-]+\.md)#([\w-]+)\)", pages["README.md"], re.M)
    assert len(listed) == sum(len(item) for item in routes.document()["paths"].values()) > 70
    for heading, page, anchor in listed:
        assert anchor == routes._slug(heading)
        [section] = [part for part in pages[page].split("\n## ") if part.startswith(f"`{heading}`\n")]
        assert "```bash\ncurl -s " in section, heading
        assert re.search(r"^\*\*2\d\d\*\*", section, re.M), heading


def test_names_in_the_examples_are_explained():
    shown = "".join(request.command for request in routes.requests() if not request.hidden)
    assert set(re.findall(r"\$(\w+)", shown)) == routes.NAMES.keys()
