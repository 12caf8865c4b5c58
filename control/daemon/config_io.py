"""
Read credwired.yaml from disk, and find this machine's cgroup v2.

In: a path.  Out: a Config; SetupError where the machine lacks something.
"""

import os
from pathlib import Path

from control.daemon.config import Config, cgroup2_mount, read_config
from control.errors import Place, ResourceError, SetupError
from control.facts.path_io import look
from control.reason import Reason

DEFAULT_PATH = Path("/etc/credwire/credwired.yaml")
_MAX_BYTES = 1 << 20


def load_config(path: Path = DEFAULT_PATH) -> tuple[Config | None, list[ResourceError]]:
    """
    Read the configuration; a missing file is all defaults when it is the default one, an error when somebody named it.

    As root, a file that others may change is an error.
    """
    place = Place(str(path), 1, 1)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if path == DEFAULT_PATH:
            return Config(), []
        return None, [_error("no such file", place, "credwire config show --defaults prints one")]
    except OSError as error:
        return None, [_error((error.strerror or "cannot be read").lower(), place, "check the path and its mode")]
    if os.geteuid() == 0 and not (fact := look(str(path.absolute()), sticky_ok=True)).root_owned:
        return None, [
            _error(f"others than root may change it: {fact.fault}", place, "chown root and chmod go-w the file and its directories")
        ]
    if len(raw) > _MAX_BYTES:
        return None, [_error(f"the file is larger than {_MAX_BYTES} bytes", place, "it should be some lines")]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None, [_error("the file is not UTF-8", place, "save it as UTF-8")]
    return read_config(str(path), text)


def _error(message: str, place: Place, hint: str) -> ResourceError:
    return ResourceError(Reason.RESOURCE_MALFORMED, message, place=place, hint=hint)


def cgroup_paths(config: Config) -> tuple[Path, Path]:
    """
    Give (scope, daemon's own cgroup) as directories.

    Raises SetupError when cgroup v2 is not mounted.
    """
    mount = cgroup2_mount(Path("/proc/self/mountinfo").read_text())
    if mount is None:
        raise SetupError(Reason.RESOURCE_UNCOMPILABLE, "cgroup v2 is not mounted", hint="mount -t cgroup2 none /sys/fs/cgroup/unified")
    return Path(mount + config.cgroup.scope), Path(mount + config.cgroup.daemon)


def workers(config: Config) -> int:
    """Give the number of proxy workers: what is configured, or one for each core that we may use."""
    return config.proxy_workers or len(os.sched_getaffinity(0))
