"""docs/client-reference.md: current, and true about the twins that it does not list."""

import guichet

from client import reference


def test_page_of_the_client_is_what_its_docstrings_say():
    assert reference.FILE.read_text() == reference.render(), "run `make client-reference`"


def test_every_public_name_of_the_package_is_on_the_page():
    page = reference.render()
    listed = {name for name in guichet.__all__ if f"### {name}\n" in page}
    assert set(guichet.__all__) - listed == {"AsyncClient", "AsyncJob", "__version__"}
    assert "** **" not in page


def test_asynchronous_twins_have_the_same_methods():
    for name in ("Client", "Job"):
        plain, twin = (
            {each for each in vars(getattr(guichet, prefix + name)) if not each.startswith("_")}
            for prefix in ("", "Async")
        )
        assert plain == twin
