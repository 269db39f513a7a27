"""The tests of scripts/release."""
