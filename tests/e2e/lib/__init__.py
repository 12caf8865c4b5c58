"""Pieces of whole-system tests and of the demo: namespaces, the cloud as a process, the real OCI CLI, a memory scanner, leftovers."""
