"""Whole-system tests: a cloud that verifies, real clients, real namespaces; and the pieces they are built from."""
