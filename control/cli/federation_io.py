"""
``credwire federation``: what the far side has to be told, and whether it and our issuer can be reached.

In: the resources on disk, the configuration; for ``check`` also the network and the daemon.  Out: the plan; one line per question.
No secret is read or sent here: the exchange itself is asked of the daemon, which tells the state of its leases and never their content.
"""

import http.client
import json
import socket as sockets
import ssl
import time
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import click
import msgspec

from control.cli import render
from control.cli.failure import CommandError, Exit
from control.cli.options import output_option, socket_option
from control.cli.settings_io import admin_socket, configuration
from control.text import plain

if TYPE_CHECKING:
    from control.api.view import BindingView
    from control.binding.model import OciSource, ResourceSet, Source

ANSWER_S: Final = 5.0
BODY_MOST: Final = 64 * 1024
SKEW_WARN_S: Final = 30.0
SKEW_MOST_S: Final = 60.0
"""What ``federation plan`` writes as clockSkewSeconds."""

directory_option = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), metavar="DIRECTORY", help="Resources, when they are not the configured ones."
)


@click.group()
def federation() -> None:
    """Prepare the far side's trust in our issuer, and look whether it can work.

    \b
    Examples:
      credwire federation plan oci
      credwire federation check
    """


def _resources(directory: Path | None) -> "ResourceSet":
    """Load and judge the resources as a reload would.  Raises CommandError with the first fault."""
    from control.binding.validate_io import validate  # noqa: PLC0415  # brings the YAML parser

    directory = directory or Path(configuration().paths.resources)
    found, errors, _ = validate(directory, configuration().trust_domain)
    if found is None:
        raise CommandError(str(errors[0]), hint=errors[0].hint)
    return found


def _chosen(found: "ResourceSet", name: str | None) -> "list[Source]":
    known = [source for source in found.sources if source.kind == "oci"]
    chosen = [source for source in known if name in (None, source.name)]
    if not chosen:
        told = ", ".join(source.name for source in known) or "none; credwire validate shows what is there"
        missing = f'there is no source "{name}" of kind oci' if name else "there is no source of kind oci"
        raise CommandError(missing, hint=f"defined: {told}")
    return chosen


# ---- plan --------------------------------------------------------------------------------------------------------------------------


@federation.command("plan")
@click.argument("kind", type=click.Choice(("oci",)), metavar="oci")
@click.argument("name", required=False)
@click.option("--setup-client", default="", metavar="ID", help="Id of the application that will create the trust.")
@directory_option
@output_option
def plan(kind: str, name: str | None, *, setup_client: str, directory: Path | None, form: str) -> None:  # noqa: ARG001  # one kind so far
    """Print what an administrator has to create at the identity domain of the source NAME, or of every source.

    Works without the daemon and without the network.  What stands in <> is for you to fill in.

    \b
    Examples:
      credwire federation plan oci
      credwire federation plan oci oci-prod -o json
    """
    from control.cli.federation_oci import plans, text  # noqa: PLC0415  # brings the models

    found = _resources(directory)
    _chosen(found, name)
    made = plans(found, configuration().issuer, setup_client, name or "")
    for warning in (warning for one in made for warning in one.warnings):
        click.echo(f"credwire: warning: {plain(warning)}", err=True)
    if form == "text":
        click.echo("\n".join(text(one) for one in made), nl=False)
    else:
        click.echo(render.document([msgspec.to_builtins(one) for one in made], form), nl=False)


# ---- check -------------------------------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """The answer to one question."""

    level: str
    """``ok``, ``warn``, ``red``"""
    what: str
    says: str
    hint: str = ""


class Fetched(NamedTuple):
    """One answer, bounded."""

    status: int
    date: str
    body: bytes


class FetchError(Exception):
    """No answer; the text says why, in one clause."""


@federation.command("check")
@click.argument("name", required=False)
@click.option(
    "--issuer-roots",
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE",
    help="CA of our issuer, when the system does not trust it.",
)
@directory_option
@output_option
@socket_option
@click.pass_context
def check(  # noqa: PLR0917  # click's options
    ctx: click.Context, name: str | None, issuer_roots: Path | None, directory: Path | None, form: str, socket: Path | None
) -> None:
    """Ask what can be asked without a secret: issuer, identity domain, clocks, the last exchange.

    The issuer is asked from here; the identity domain may still not reach it.  The exchange is the daemon's: the line says what its
    last one gave.  Exit code 1 when a line is red.

    \b
    Examples:
      credwire federation check
      credwire federation check oci-prod -o json
    """
    sources = _chosen(_resources(directory), name)
    lines = [*_issuer_lines(issuer_roots), *_domain_lines(sources), *_lease_lines(sources, socket or admin_socket())]
    if form == "text":
        for line in lines:
            click.echo(plain(f"{line.level:<5} {line.what}: {line.says}"))
            if line.hint:
                click.echo(plain(f"      try: {line.hint}"))
    else:
        click.echo(render.document([line._asdict() for line in lines], form), nl=False)
    if any(line.level == "red" for line in lines):
        ctx.exit(Exit.REFUSED)


def _issuer_lines(roots: Path | None) -> Iterator[Line]:
    config = configuration()
    issuer = config.issuer
    pem = roots.read_text() if roots else ""
    what = f"issuer {issuer}"
    try:
        document = _json(_get(f"{issuer.rstrip('/')}/.well-known/openid-configuration", pem))
    except FetchError as error:
        unpublished = "publish the issuer's two documents: public.listen, or a copy of run/public behind a web server"
        private = "name its CA with --issuer-roots; an identity domain trusts public CAs only"
        yield Line("red", what, str(error), private if "does not verify" in str(error) else unpublished)
        return
    if document.get("issuer") != issuer:
        yield Line("red", what, f'the document names issuer "{str(document.get("issuer"))[:200]}"', "set issuerUrl to the same letters")
    else:
        yield Line("ok", what, "the document names it to the letter")
    expected = f"{issuer.rstrip('/')}/jwks"
    if document.get("jwks_uri") != expected:
        yield Line("red", "keys", "jwks_uri is not below the issuer", f"the trust names {expected}")
        return
    try:
        published = _json(_get(expected, pem))
    except FetchError as error:
        yield Line("red", f"keys {expected}", str(error), "an identity domain cannot verify our tokens without it")
        return
    ours = Path(config.paths.run) / "public" / "jwks"
    try:
        same = json.loads(ours.read_bytes()) == published
    except (OSError, ValueError):
        yield Line("warn", f"keys {expected}", f"published; not compared: {ours} cannot be read", "start credwired, and ask as root")
        return
    if same:
        yield Line("ok", f"keys {expected}", "published, equal to ours")
    else:
        yield Line("red", f"keys {expected}", "not equal to ours", "copy run/public/jwks again: tokens of new keys would be refused")


def _domain_lines(sources: "Iterable[Source]") -> Iterator[Line]:
    for of in {of.domain: of for of in map(_of, sources)}.values():
        what = f"domain {of.domain}"
        try:
            answered = _get(f"{of.domain}/.well-known/openid-configuration", of.upstream_roots)
        except FetchError as error:
            yield Line("red", what, str(error), "check the source's domain, the network, and upstreamRoots if its CA is a private one")
            continue
        yield Line("ok", what, f"answers {answered.status}, its certificate verifies")
        yield from _clock_line(answered.date)
        try:
            keys = _get(str(_json(answered).get("jwks_uri", "")), of.upstream_roots)
        except FetchError as error:
            yield Line("warn", f"keys of {of.domain}", str(error), "of use to people only; the exchange does without them")
            continue
        yield Line("ok" if keys.status == 200 else "warn", f"keys of {of.domain}", f"answered {keys.status}")


def _of(source: "Source") -> "OciSource":
    from control.binding.model import OciSource  # noqa: PLC0415  # loaded by now

    assert isinstance(source.of, OciSource)  # noqa: S101  # _chosen lets no other through
    return source.of


def _clock_line(date: str) -> Iterator[Line]:
    try:
        apart = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        yield Line("warn", "clock", "the domain tells no date")
        return
    says = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the domain's" if abs(apart) >= 1 else "equal to the domain's"
    if abs(apart) > SKEW_MOST_S:
        yield Line("red", "clock", says, "set this machine's clock (chronyd, systemd-timesyncd): tokens and signatures carry the time")
    else:
        yield Line("warn" if abs(apart) > SKEW_WARN_S else "ok", "clock", says)


def _lease_lines(sources: "Iterable[Source]", socket: Path) -> Iterator[Line]:
    from control.api.ask import AskError  # noqa: PLC0415
    from control.cli.daemon_io import daemon  # noqa: PLC0415

    try:
        with daemon(socket) as asked:
            bindings = asked.bindings().bindings
    except AskError as error:
        yield Line("warn", "exchange", f"not asked: {error.message}", error.hint)
        return
    for source in sources:
        users = [binding for binding in bindings if binding.source == source.name]
        if not users:
            yield Line("warn", f"exchange {source.name}", "no binding in force uses it", "credwire diff; credwire reload")
        for binding in users:
            yield _lease_line(source.name, binding)


def _lease_line(source: str, binding: "BindingView") -> Line:
    from control.reason import ABOUT, Reason  # noqa: PLC0415

    lease, what = binding.lease, f"exchange {source} for {binding.identity}"
    if lease.state == "held" and not lease.reason:
        return Line("ok", what, f'gave principal "{lease.principal}", until {render.utc(lease.expires_at)} UTC')
    if lease.state == "none":
        return Line("warn", what, "none yet: nothing has asked for a credential", f"let a program of {binding.identity} make a request")
    if lease.state == "flight":
        return Line("warn", what, "under way", "ask again in some seconds")
    known = lease.reason in set(Reason)
    return Line("red", what, f"{lease.detail or 'no credential'} ({lease.reason})", ABOUT[Reason(lease.reason)].hint if known else "")


# ---- the wire ----------------------------------------------------------------------------------------------------------------------


def _get(url: str, roots_pem: str) -> Fetched:
    """One GET over verified TLS; no redirect is followed, nothing is sent but the question.  Raises FetchError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError as error:  # the domain's own word: its document names the second address
        raise FetchError("the address that is named cannot be read") from error
    if parts.scheme != "https":
        raise FetchError("no address over https is named")
    try:
        tls = ssl.create_default_context(cadata=roots_pem) if roots_pem else ssl.create_default_context()
    except ssl.SSLError as error:
        raise FetchError("the file of roots holds no certificate") from error
    connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_S, context=tls)
    try:
        connection.request("GET", parts.path or "/", headers={"accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(BODY_MOST + 1)
    except ssl.SSLCertVerificationError as error:
        raise FetchError(f"its certificate does not verify: {error.verify_message}") from error
    except sockets.gaierror as error:
        raise FetchError("its name does not resolve") from error
    except TimeoutError as error:
        raise FetchError(f"no answer within {ANSWER_S:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}") from error
    finally:
        connection.close()
    if len(body) > BODY_MOST:
        raise FetchError(f"its answer is larger than {BODY_MOST} bytes")
    return Fetched(answer.status, answer.getheader("date") or "", body)


def _json(answered: Fetched) -> dict[str, Any]:
    if answered.status != 200:
        raise FetchError(f"answered {answered.status}")
    try:
        document = json.loads(answered.body)
    except (ValueError, RecursionError) as error:
        raise FetchError("its answer is no JSON") from error
    if not isinstance(document, dict):
        raise FetchError("its answer is no JSON object")
    return document
