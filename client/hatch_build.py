"""The project's addresses in the package's metadata: those of the repository that builds it.

A copy that is built elsewhere names none, rather than one that belongs to somebody else.
"""

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Addresses(MetadataHookInterface):
    """Fills in `urls` where GitHub says which repository it builds."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the addresses to the metadata."""
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        repository = os.environ.get("GITHUB_REPOSITORY")
        if not repository:
            metadata["urls"] = {}
            return
        home = f"{server}/{repository}"
        metadata["urls"] = {
            "Homepage": home,
            "Documentation": f"{home}/blob/main/client/README.md",
            "Changelog": f"{home}/blob/main/CHANGELOG.md",
            "Issues": f"{home}/issues",
            "Security": f"{home}/security/policy",
        }
