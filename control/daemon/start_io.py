"""
From the configuration to a running supervisor, and back to a machine without our programs.

In: the path of credwired.yaml.  Out: an exec of the supervisor with one JSON argument; or the list of what was detached.
"""

import grp
import json
import os
import sys
from pathlib import Path

import msgspec

from bpf.remove_io import remove
from control.daemon.config import Config
from control.daemon.config_io import cgroup_paths, load_config, workers
from control.daemon.seal_io import Seals, open_seals
from control.errors import CredwireError

_SUPERVISOR = "control.daemon.supervisor_io"


def start(config_path: Path, *, own_cgroup: bool = False) -> int:  # noqa: RET503  # execv never returns
    """
    Become the supervisor.  Returns only when that is impossible, with the exit code.

    ``own_cgroup``: the daemon's cgroup is the one we are in, because a service manager made it and watches it.
    """
    config = configured(config_path)
    if config is None:
        return 2
    if own_cgroup:
        if not _cgroup_of_ours().endswith(".service"):  # whoever lives in the daemon's cgroup is never redirected: a whole session would be
            return _say(f"the cgroup {_cgroup_of_ours()} is no service's", "leave --own-cgroup out; it is for service managers")
        config = msgspec.structs.replace(config, cgroup=msgspec.structs.replace(config.cgroup, daemon=_cgroup_of_ours()))
    if os.geteuid() != 0:
        return _say("credwired needs root", "sudo credwired run, or the systemd unit")
    try:
        setup = _setup(config, config_path)
        if not supervisor(Path(config.paths.run)):
            _take_port(Path(config.paths.pins), cgroup_paths(config)[1])
        setup |= _sealed(open_seals(config))
        argument = json.dumps(setup)
    except CredwireError as error:
        return _say(str(error), error.hint)
    except OSError as error:
        return _say(f"the listener's port cannot be taken over: {error}", "credwired detach, then start again")
    os.execv(sys.executable, [sys.executable, "-P", "-m", _SUPERVISOR, argument])  # noqa: S606


def _take_port(pins: Path, daemon_cgroup: Path) -> None:
    """What a daemon before us left attached guards our port for its own cgroup, and a service manager gave us another one."""
    from bpf.kernel_io import Kernel  # noqa: PLC0415  # gone with the exec

    daemon_cgroup.mkdir(parents=True, exist_ok=True)
    Kernel.take_port(pins=pins, daemon_cgroup=daemon_cgroup)


def supervisor(run: Path) -> int:
    """Find the pid of the supervisor that serves ``run``; 0 when there is none."""
    try:
        rows = json.loads((run / "processes.json").read_text())
        pid = int(rows[0]["pid"])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        told = json.loads(words[words.index(_SUPERVISOR.encode()) + 1])
    except (OSError, ValueError, LookupError, TypeError):
        return 0
    return pid if told.get("run") == str(run) else 0


def detach_all(config_path: Path) -> list[str]:
    """Remove every program, link and pin of this configuration."""
    if os.geteuid() != 0:
        sys.exit(_say("detaching needs root", "sudo credwired detach"))
    config = configured(config_path)
    if config is None:
        sys.exit(2)
    removed = remove(Path(config.paths.pins))
    _, daemon_cgroup = cgroup_paths(config)
    if daemon_cgroup.is_dir() and not (daemon_cgroup / "cgroup.procs").read_text().strip():
        daemon_cgroup.rmdir()
        removed.append(f"cgroup {daemon_cgroup}")
    return removed or ["nothing was attached"]


def _cgroup_of_ours() -> str:
    """Our path in the unified hierarchy (cgroups(7): the line of /proc/self/cgroup with number 0 and no controller)."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def configured(config_path: Path) -> Config | None:
    """Read the configuration; None after every error was said."""
    config, errors = load_config(config_path)
    for error in errors:
        _say(str(error), error.hint)
    return config


def _setup(config: Config, config_path: Path) -> dict[str, object]:
    scope, daemon_cgroup = cgroup_paths(config)
    paths = config.paths
    return {
        "config": str(config_path),
        "run": paths.run,
        "state": paths.state,
        "resources": paths.resources,
        "pins": paths.pins,
        "cache": paths.cache,
        "scope": str(scope),
        "daemon_cgroup": str(daemon_cgroup),
        "uids": msgspec.to_builtins(config.uids),
        "trust_domain": config.trust_domain,
        "issuer_url": config.issuer,
        "stale_s": float(config.stale_after_s),
        "listen_port": config.listen_port,
        "excluded": list(config.excluded_networks),
        "workers": workers(config),
        "connections_per_process": config.limits.connections_per_process,
        "public": msgspec.to_builtins(config.public) if config.public is not None else None,
        "groups": {role: {"name": name, "gid": _gid(name)} for role, name in msgspec.structs.asdict(config.groups).items()},
        "credentials": os.environ.get("CREDENTIALS_DIRECTORY", ""),
    }


def _sealed(seals: Seals) -> dict[str, object]:
    """Hand on the keys that were derived, by descriptors that the supervisor keeps for every keys and agent it starts."""
    for fd in (seals.keys_fd, seals.secrets_fd):
        if fd >= 0:
            os.set_inheritable(fd, True)
    return {
        "keys_seal_fd": seals.keys_fd,
        "secrets_fd": seals.secrets_fd,
        "seal": {"how": seals.how, "fault": seals.fault, "hint": seals.hint},
    }


def _gid(name: str) -> int:
    """Number of a group; -1 where there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1


def _say(message: str, hint: str) -> int:
    print(f"credwired: error: {message}", file=sys.stderr)
    if hint:
        print(f"credwired: hint: {hint}", file=sys.stderr)
    return 2
