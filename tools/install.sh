#!/bin/sh
# Put credwire on this machine, or take it off again.
#
# usage: install.sh install | uninstall | purge
# install: Debian packages that are missing, a virtual environment of its own below /opt/credwire, the two commands, the unit, the groups,
#   a configuration that holds every default.  Nothing is started and nothing is bound.  A second run replaces the program and keeps the rest.
# uninstall: stop the daemon, take every BPF program and pin out, remove the program.  Configuration, resources, keys and audit stay.
# purge: uninstall, and remove those too.
set -eu
umask 022 # others run the program; root's own umask may be 077, or leave directories open
prefix=/opt/credwire
commands=/usr/local/bin
unit=/etc/systemd/system/credwired.service
completion=/usr/share/bash-completion/completions/credwire
etc=/etc/credwire
state=/var/lib/credwire
cache=/var/cache/credwire/bpf
logs=/var/log/credwire
packages="python3 python3-venv python3-bpfcc ca-certificates"

say() { printf 'credwire: %s\n' "$*" >&2; }
fail() {
  printf 'credwire: error: %s\n' "$1" >&2
  printf 'credwire: hint: %s\n' "$2" >&2
  exit 1
}
[ "$(id -u)" = 0 ] || fail "this needs root" "sudo make ${1:-install}"

with_systemd() { [ -d /run/systemd/system ]; }

install_packages() {
  missing=""
  for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
  done
  [ -n "$missing" ] || return 0
  say "installing Debian packages, about half a minute:$missing"
  log=$(mktemp)
  # shellcheck disable=SC2086  # words on purpose
  if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get failed; the lines above say why" "mend apt, then make install again"
  fi
  rm -f "$log"
}

# The program lies in a directory named by its content; `current` is switched to it at once, so a running daemon keeps its own files.
install_program() {
  cd "$(dirname "$0")/.."
  content=$(find pyproject.toml LICENSE README.md control bpf $([ -d sysfs_fallback ] && echo sysfs_fallback) -type f ! -path '*/__pycache__/*' -print0 |
    sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
  fresh=$prefix/$content
  before=$(readlink "$prefix/current" 2>/dev/null || true)
  if [ -x "$fresh/bin/credwire" ] && [ -e "$fresh/whole" ]; then
    say "the program is there already: $fresh"
  else
    say "installing the program and its pinned Python packages into $fresh, about a minute"
    rm -rf "$fresh"
    mkdir -p "$prefix"
    /usr/bin/python3 -m venv --system-site-packages "$fresh" || fail "python3 -m venv failed" "apt-get install python3-venv"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT INT TERM
    cp -r pyproject.toml LICENSE README.md control bpf "$work"/
    [ -d sysfs_fallback ] && cp -r sysfs_fallback "$work"/
    "$fresh/bin/python" -P -m pip install --quiet --quiet --disable-pip-version-check --no-cache-dir "$work" ||
      fail "pip failed; the lines above say why" "mend the network or pip's settings, then make install again"
    rm -rf "$work"
    trap - EXIT INT TERM
    : >"$fresh/whole"
  fi
  ln -sfn "$content" "$prefix/current.new"
  mv -T "$prefix/current.new" "$prefix/current"
  for old in "$prefix"/*/; do # the one before stays for a daemon that still runs it
    old=${old%/}
    case ${old##*/} in current | "$content" | "$before") ;; *) rm -rf "$old" ;; esac
  done
  mkdir -p "$commands"
  ln -sfn "$prefix/current/bin/credwire" "$commands/credwire"
  ln -sfn "$prefix/current/bin/credwired" "$commands/credwired"
  install -m 0755 "$0" "$prefix/install.sh"
}

install_rest() {
  for group in credwire-admin credwire-view; do
    getent group "$group" >/dev/null || groupadd --system "$group"
  done
  install -d -m 0755 "$etc" "$etc/resources"
  install -d -m 0700 "$etc/secrets"
  if [ ! -e "$etc/credwired.yaml" ]; then
    "$commands/credwire" config show --defaults >"$etc/credwired.yaml.new"
    mv "$etc/credwired.yaml.new" "$etc/credwired.yaml"
  fi
  if command -v systemctl >/dev/null; then
    install -m 0644 tools/credwired.service "$unit"
    with_systemd && systemctl daemon-reload
  fi
  if [ -d "${completion%/*}" ]; then
    _CREDWIRE_COMPLETE=bash_source "$commands/credwire" >"$completion" || rm -f "$completion"
  fi
}

stop_all() {
  if [ -x "$commands/credwired" ]; then
    "$commands/credwired" stop || say "warning: credwired stop failed; credwired detach below takes its programs out, its processes may live on"
    with_systemd && systemctl disable --quiet credwired 2>/dev/null
    "$commands/credwired" detach >/dev/null ||
      fail "the BPF programs could not be removed" "mend $etc/credwired.yaml if the lines above name it; else reboot; then $0 $1"
  elif [ -x "$prefix/current/bin/python" ]; then
    "$prefix/current/bin/python" -P -m bpf.remove_io /sys/fs/bpf/credwire
  fi
  return 0
}

case ${1:-} in
  install)
    install_packages
    install_program "$@"
    install_rest
    say "installed: credwire and credwired in $commands, configuration in $etc"
    if "$commands/credwire" status >/dev/null 2>&1 || [ $? = 1 ]; then
      say "the daemon that runs goes on with the program it was started with; to change over: credwired stop && credwired start"
    elif [ -n "$(find "$etc/resources" -name '*.y*ml' -print -quit)" ]; then
      say "configuration, resources, secrets and keys are as they were; next: credwired start"
    else
      say "nothing is bound and nothing runs; next: credwire init --help"
    fi
    ;;
  uninstall | purge)
    stop_all "$1"
    cd /
    rm -f "$commands/credwire" "$commands/credwired" "$unit" "$completion"
    with_systemd && systemctl daemon-reload
    rm -rf "$prefix" /run/credwire "$cache"
    rmdir "${cache%/*}" 2>/dev/null || true
    if [ "$1" = purge ]; then
      rm -rf "$etc" "$state" "$logs"
      for group in credwire-admin credwire-view; do
        getent group "$group" >/dev/null || continue
        groupdel "$group" || say "warning: the group $group stays: somebody else defined or uses it"
      done
      say "removed, with configuration, resources, keys and audit"
    else
      say "removed; kept: $etc (configuration, resources, secrets), $state (keys, audit); make purge removes them too"
    fi
    ;;
  *)
    fail "unknown word \"${1:-}\"" "install.sh install | uninstall | purge"
    ;;
esac
