"""
A stand-in Oracle cloud that verifies for real: an identity domain and the API endpoints that a test needs.

It shares no code with control/: what it checks is written from the far side's documents, with libraries that control/ does not sign with
(PyJWT for tokens, httpsig for request signatures).  Start it with ``python -m tests.e2e.cloud.main --help``.
"""
