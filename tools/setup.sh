#!/bin/sh
# Install what the project needs: Debian packages (as root only) and a virtual environment in .venv.
#
# In: nothing; "test" for what the tests need beyond; "check" to leave Debian's packages alone.
# Out: .venv with every pin of pyproject.toml.
# Idempotent: a second run looks and does nothing.  The environment sees the system's packages because bcc is one of them.
set -eu
cd "$(dirname "$0")/.."
mode=${1:-all}
packages="python3 python3-venv python3-bpfcc ca-certificates bpftool" # bpftool tells what is left behind
case $mode in
  test) packages="$packages gcc curl git nginx-light openssl" ;; # gcc compiles bpf/abi.h, to compare what C and Python make of it; the others are clients and servers
  check) packages="" ;;
esac

say() { printf 'setup: %s\n' "$*" >&2; }

if [ -n "$packages" ] && [ "$(id -u)" = 0 ]; then
  missing=""
  for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
  done
  if [ -n "$missing" ]; then
    say "installing Debian packages, about half a minute:$missing"
    log=$(mktemp)
    policy=/usr/sbin/policy-rc.d # nginx is for the tests to start themselves: Debian would start it at once
    if [ -e "$policy" ]; then policy=""; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 0755 "$policy"; fi
    trap '[ -z "$policy" ] || rm -f "$policy"' EXIT INT TERM
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      say "error: apt-get failed; the lines above say why"
      rm -f "$log"
      exit 1
    fi
    rm -f "$log"
    [ -z "$policy" ] || rm -f "$policy"
    trap - EXIT INT TERM
    case $missing in *nginx-light*) [ ! -d /run/systemd/system ] || systemctl disable --quiet nginx ;; esac
  fi
elif [ -n "$packages" ]; then
  say "not root: Debian packages are left alone"
fi

stamp=$(cat pyproject.toml tools/setup.sh | sha256sum | cut -c1-16)
if [ "$(cat .venv/stamp 2>/dev/null || true)" != "$stamp" ]; then
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then # none, or the half of one that a ^C left
    say "making .venv"
    /usr/bin/python3 -m venv --clear --system-site-packages .venv || {
      say "error: python3 -m venv failed; hint: apt-get install python3-venv"
      exit 1
    }
  fi
  say "installing the pinned Python packages into .venv, about a minute"
  .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check "setuptools==81.0.0"
  .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
  printf '%s' "$stamp" >.venv/stamp
fi
