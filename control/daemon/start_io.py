"""
From the configuration to a running supervisor, and back to a machine without our programs.

In: the path of credwired.yaml.  Out: an exec of the supervisor with one JSON argument; or the list of what was detached.
"""

import json
import os
import sys
from pathlib import Path

import msgspec

from bpf.remove_io import remove
from control.daemon.config import Config
from control.daemon.config_io import cgroup_paths, load_config, workers
from control.errors import CredwireError


def start(config_path: Path) -> int:  # noqa: RET503  # execv never returns
    """Become the supervisor.  Returns only when that is impossible, with the exit code."""
    config = _load(config_path)
    if config is None:
        return 2
    if os.geteuid() != 0:
        return _say("credwired needs root", "sudo credwired run, or the systemd unit")
    try:
        argument = json.dumps(_setup(config, config_path))
    except CredwireError as error:
        return _say(str(error), error.hint)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "control.daemon.supervisor_io", argument])  # noqa: S606


def detach_all(config_path: Path) -> list[str]:
    """Remove every program, link and pin of this configuration."""
    config = _load(config_path)
    if config is None:
        sys.exit(2)
    removed = remove(Path(config.paths.pins))
    _, daemon_cgroup = cgroup_paths(config)
    if daemon_cgroup.is_dir() and not (daemon_cgroup / "cgroup.procs").read_text().strip():
        daemon_cgroup.rmdir()
        removed.append(f"cgroup {daemon_cgroup}")
    return removed or ["nothing was attached"]


def _load(config_path: Path) -> Config | None:
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
    }


def _say(message: str, hint: str) -> int:
    print(f"credwired: error: {message}", file=sys.stderr)
    if hint:
        print(f"credwired: hint: {hint}", file=sys.stderr)
    return 2
