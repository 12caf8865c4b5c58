"""
The rules that keep trust narrow, each under a name that its errors carry.

In: nothing.  Out: RULES, and the words that an error adds.  An over-broad resource is refused with the rule's name, so that whoever wants
to argue knows what about (C5).  Pure.
"""

from typing import Final

RULES: Final[dict[str, str]] = {
    "owner-named": "every resource says who answers for it",
    "one-program": "an identity is one program, and nothing that runs whatever it is told to",
    "no-relay": "a program that relays for others has no identity",
    "no-root": "root has an identity only where allowRoot says so",
    "one-audience": "a token is for one far side, which cannot replay it to another",
    "one-subject": "a far side trusts one workload, named in full",
    "one-principal": "an exchange yields one principal, known beforehand",
    "one-environment": "a source is never given to another environment",
    "short-lived": "a credential lives for a day at most",
    "static-reviewed": "a secret that somebody issued once is looked at again, and its day is known",
    "review-yearly": "a review is at most a year away",
    "stale-bounded": "a lease is used for a day at most after its end",
    "named-host": "a credential goes to names of two labels or more",
    "named-network": "a private network is named, and nothing wider",
}


def by(rule: str) -> str:
    """Give what an error's sentence ends with; a rule that does not exist is a fault of ours."""
    assert rule in RULES  # noqa: S101  # told by the first test that meets the error
    return f' (rule "{rule}")'
