"""The tests of shared/packages/artefacts."""
