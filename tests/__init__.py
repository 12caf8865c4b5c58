"""Tests, sorted by what they need: nothing (unit, fuzz, repo), root (kernel, attack, e2e), a VM (suites)."""
