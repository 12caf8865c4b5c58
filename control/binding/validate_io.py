"""
Validate a directory of resources on any machine: no root, no daemon, no bcc.

In: a directory.  Out: the set that a reload would swap in, every error, every warning.
"""

from pathlib import Path

from control.binding.compile_io import plan
from control.binding.load import Loaded
from control.binding.load_io import load_directory
from control.errors import Place, ResourceError
from control.reason import Reason

DEFAULT_TRUST_DOMAIN = "credwire.local"
"""Of an installation that has named none (control/daemon/config.py)."""


def validate(directory: Path, trust_domain: str = DEFAULT_TRUST_DOMAIN, *, here: bool = False, guarded: bool = False) -> Loaded:
    """
    Load and judge ``directory``.

    ``here`` also looks at this machine's executables and scripts; ``guarded`` also asks that all files are root's alone, as the daemon
    does.  Neither is asked of a directory in a repository.
    """
    found, errors, warnings = load_directory(directory, trust_domain, guarded=guarded)
    if found is None:
        return Loaded(None, errors, warnings)
    if not found.identities and not found.bindings:
        nothing = ResourceError(Reason.RESOURCE_MALFORMED, "no resources", place=Place(str(directory), 1, 1), hint="add *.yaml files")
        warnings = [*warnings, nothing]
    if found.bindings and trust_domain == DEFAULT_TRUST_DOMAIN:
        warnings = [
            *warnings,
            ResourceError(
                Reason.RESOURCE_MALFORMED,
                f'the trust domain is still "{DEFAULT_TRUST_DOMAIN}", which every new installation has',
                hint="set trustDomain in credwired.yaml before anybody trusts these names",
            ),
        ]
    if here:
        warnings = [*warnings, *plan(found)[1]]
    return Loaded(found, [], warnings)
