"""The console in French: what the service says of itself is French too, by the code of its cause."""

from pathlib import Path

from shared.reasons import Reason
from tests.contracts.console.test_console import HTML, check_page
from tests.contracts.helpers import apart
from tests.support.stack import Stack

NO_BROKER = "redis://127.0.0.1:1/0"


def test_reasons_of_bad_health_are_in_the_language_of_the_page(stack: Stack, tmp_path: Path) -> None:
    env = {"REDIS_URL": NO_BROKER} if stack.runtime == "queue" else {}
    with apart(stack, tmp_path, DEFAULT_MODEL="nothing", **env) as other, other.client() as client:
        health = client.get("/health").json()
        pages = {
            language: check_page(client.get("/console", params={"lang": language}, headers=HTML))
            for language in ("en", "fr")
        }
    causes = dict(zip(health["reasons"], health["causes"], strict=True))
    assert causes["DEFAULT_MODEL names nothing, which is not registered."] == {
        "code": "default_model_unknown",
        "values": {"model": "nothing"},
    }
    for reason, cause in causes.items():
        assert cause is None or Reason(cause["code"], **cause["values"]) == reason
    assert "DEFAULT_MODEL names nothing, which is not registered." in pages["en"]
    assert "DEFAULT_MODEL nomme nothing, qui n’est pas enregistré." in pages["fr"]
    assert ("Redis ne répond pas : les jobs sont enregistrés" in pages["fr"]) == (stack.runtime == "queue")
    for sentence in ("which is not registered", "Redis does not answer"):
        assert sentence not in pages["fr"]
