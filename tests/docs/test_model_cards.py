"""docs/model-cards: the figures that they quote are those of the models that the seeded generators give."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.generate import model_cards
from shared.packages.package import Package

NUMBER = re.compile(r"-?\d+\.\d+")
HEADINGS = ("Intended use", "Data", "Figures", "Limits", "Ethics", "Maintenance")
EXAMPLES = sorted(model_cards.TRAINERS)


def quoted(name: str) -> str:
    """Return the block of figures of a page."""
    page = (model_cards.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return page.partition(model_cards.BEGIN)[2].partition(model_cards.END)[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_figures_of_a_card_are_those_of_the_rows_that_the_model_was_not_fitted_on(
    name: str, example_package: Callable[[str], Package]
):
    computed, page = model_cards.render(example_package(name)), quoted(name)
    assert NUMBER.sub("#", page) == NUMBER.sub("#", computed), "run `make model-cards`"
    figures = [float(number) for number in NUMBER.findall(computed)]
    assert len(figures) > 15
    # Half of the last digit, for a processor that adds up in another order.
    assert [float(number) for number in NUMBER.findall(page)] == pytest.approx(figures, abs=0.0011)


@pytest.mark.parametrize("name", EXAMPLES)
def test_figures_agree_with_those_that_the_training_stored_in_the_card(
    name: str, example_package: Callable[[str], Package]
):
    package = example_package(name)
    held = model_cards.score_holdout(package)
    figures = model_cards.metrics_of(held)
    shared = figures.keys() & package.card.metrics.keys()
    assert len(shared) >= 3
    assert {key: figures[key].value for key in shared} == pytest.approx(
        {key: package.card.metrics[key] for key in shared}, abs=1e-9
    )
    assert len(held.rows) == package.card.metrics["holdout_rows"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_card_answers_every_question_of_the_pattern(name: str):
    page = (model_cards.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.+)$", page, re.M)) == HEADINGS


def test_pages_of_the_folder_are_the_pattern_and_the_examples():
    assert sorted(path.stem for path in Path(model_cards.FOLDER).glob("*.md")) == ["README", *EXAMPLES]
