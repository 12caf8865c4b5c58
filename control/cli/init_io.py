"""
``credwire init``: somebody's first own binding.

In: flags, or answers on a terminal.  Out: one file of resources and one sealed secret, judged together with what is there as a reload
would; or nothing at all, and the reason.  Says which command comes next.  Nothing runs differently before a reload.
"""

import datetime as dt
import os
import pwd
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from control.api.ask import AskError
from control.cli import secret_io, starter
from control.cli.daemon_io import look_at
from control.cli.failure import CommandError, Exit
from control.cli.options import force_option
from control.cli.program_io import find, is_file
from control.cli.settings_io import configuration, secrets_directory
from control.cli.terminal_io import asked_by_people, note

if TYPE_CHECKING:
    from control.daemon.config import Config
    from control.identity.model import Identity

Command = TypeVar("Command", bound=Callable[..., Any])

_DURATION: Final = "90d"
_MORE: Final = re.compile(r"[:/?#@]|\.$")
"""What a URL has and a host name has not."""
_UID: Final = re.compile(r"[0-9]{1,18}")


@click.group()
def init() -> None:
    """Make a first binding of your own: one file, one secret.

    Asks on a terminal, takes flags elsewhere.  The binding observes until its document says enforce; nothing changes before a reload.

    \b
    Examples:
      credwire init api-key --help
      credwire init oci --help
    """


def _common(command: Command) -> Command:
    """The options of every kind of binding."""
    for option in reversed(
        (
            click.argument("name"),
            click.option("--host", "hosts", multiple=True, metavar="HOST", help="Where it may go; *.x.org: all below x.org."),
            click.option("--port", "ports", multiple=True, type=click.IntRange(1, 65535), help="When it is not 443."),
            click.option("--exe", metavar="PATH", help="The program: an executable, or a #! script."),
            click.option("--script", metavar="PATH", help="The #! script, when --exe is its interpreter."),
            click.option("--user", metavar="USER", help="Who runs it: a name or a uid."),
            click.option("--allow-root", is_flag=True, help="Let USER be root."),
            click.option("--owner", metavar="WHO", help="Who answers for it, like team@example.org."),
            click.option("--environment", default="prod", show_default=True, metavar="WORD", help="Of the program and of the secret."),
            click.option("--mode", type=click.Choice(("observe", "enforce")), default="observe", show_default=True,
                         help="observe records and gives nothing."),
            click.option("--method", "methods", multiple=True, metavar="METHOD", help="Only these methods."),
            click.option("--path", "paths", multiple=True, metavar="GLOB", help="Only these paths, like /v1/*."),
            click.option("--network", "networks", multiple=True, metavar="CIDR", help="Private addresses the host may have."),
            click.option("--upstream-roots", metavar="FILE", default="", help="A CA file instead of the system's roots."),
            click.option("--review-every", default=_DURATION, show_default=True, metavar="DURATION", help="How often OWNER looks at it."),
            click.option("--secret-file", metavar="FILE", default="-", help="Holds the secret; else standard input or a prompt."),
            click.option("--resources", type=click.Path(path_type=Path), metavar="DIR", help="When it is not the configured directory."),
            force_option,
        )
    ):  # fmt: skip
        command = option(command)
    return command


@init.command("api-key")
@_common
@click.option("--header", metavar="NAME", help="The secret is the value of this header.")
@click.option("--template", metavar="TEXT", help='Around the secret in the header, like "Token {secret}".')
@click.option("--bearer", is_flag=True, help="Authorization: Bearer SECRET.")
@click.option("--basic", metavar="USERNAME", help="Authorization: Basic; the secret is the password.")
@click.option("--query", metavar="PARAMETER", help="The secret is a query parameter.")
@click.option("--cookie", metavar="NAME", help="The secret is a cookie.")
@click.option("--identity", metavar="NAME", help="An identity that is defined already, instead of --exe and --user.")
def api_key(**given: Any) -> None:
    """Bind an API key, a token or a password to one program.

    The secret is read from --secret-file, from standard input, or asked for without echo: never from the command line.  Say one of
    --header, --bearer, --basic, --query and --cookie.

    \b
    Examples:
      credwire init api-key billing --force \\
        --host api.example.org --header X-Api-Key \\
        --exe /usr/bin/curl --user 1001 --owner me@example.org < key.txt
    """
    name = _named(given["name"])
    config = configuration()
    _check_free(config, given)
    ask = _Asking("api-key")
    hosts = _hosts(ask, given["hosts"], "--host", "host that takes the key")
    wire = _wire(given, ask)
    described = _described(name, given, hosts, ask)
    ask.close()
    if given["template"]:
        if "header" not in wire:
            raise click.UsageError("--template goes with --header")
        wire["template"] = given["template"]
    file = secrets_directory(config) / name
    common = described()
    text = starter.api_key(common, str(file), wire)
    _write(config, given, common, text=text, secret_file=file, what=f'secret of "{name}"')


@init.command("oci")
@_common
@click.option("--domain", metavar="URL", help="The identity domain, like https://idcs-….identity.oraclecloud.com.")
@click.option("--client-id", metavar="ID", help="The confidential application that its trust lists; the secret is its client secret.")
@click.option("--instance-principal", is_flag=True, help="Instead: this instance shows its own certificate, and there is no secret.")
@click.option("--principal", metavar="USER", help="The service user that the exchange must yield.")
@click.option("--audience", metavar="WORD", help="What the trust expects as audience.")
@click.option("--region", metavar="REGION", help="Instead of --host: every service of this region.")
def oci(**given: Any) -> None:
    """Bind the OCI CLI or an SDK program to a service user.

    Makes the identity, the federation, the source and the binding.  The client secret is read from --secret-file, from standard input, or
    asked for without echo.

    \b
    Examples:
      credwire init oci reports --force \\
        --domain https://idcs-1.identity.oraclecloud.com --client-id credwire \\
        --principal svc-reports --audience oci-prod --region us-ashburn-1 \\
        --exe /usr/bin/python3.11 --script /opt/reports/bin/report --user 1001 \\
        --owner me@example.org < key.txt
    """
    name = _named(given["name"])
    config = configuration()
    _check_free(config, given)
    ask = _Asking("oci")
    region = given["region"]
    hosts = (f"*.{region}.oraclecloud.com",) if region and not given["hosts"] else _hosts(ask, given["hosts"], "--host or --region", "host")
    url = ask.one(given["domain"], "--domain", "URL of the identity domain")
    client = "" if given["instance_principal"] else ask.one(given["client_id"], "--client-id or --instance-principal", "client id")
    principal = ask.one(given["principal"], "--principal", "service user the exchange must yield")
    audience = ask.one(given["audience"], "--audience", "audience the trust expects")
    described = _described(name, {**given, "identity": None}, hosts, ask)
    ask.close()
    file = secrets_directory(config) / name
    common = described()
    text = starter.oci(common, starter.Domain(url, client, str(file), audience, principal), config.trust_domain)
    _write(config, given, common, text=text, secret_file=file if client else None, what=f'client secret of "{client}"')


# ---- asking ----------------------------------------------------------------------------------------------------------------------------


class _Asking:
    """Takes what was given, asks for the rest on a terminal, and remembers what is missing elsewhere."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.people = asked_by_people()
        self.missing: list[str] = []

    def one(
        self, given: str | None, flag: str, question: str, *, default: str | None = None, wrong: Callable[[str], str] = lambda _: ""
    ) -> str:
        """One word; ``wrong`` says what is wrong with an answer, which is then asked for again."""
        if given:
            return given
        while self.people:
            word = str(click.prompt(question, default=default, err=True))
            says = wrong(word)
            if not says:
                return word
            note("error", says)
        self.missing.append(flag)
        return ""

    def several(self, given: Sequence[str], flag: str, question: str) -> Sequence[str]:
        """One word or more."""
        return given or tuple(self.one(None, flag, question).split())

    def close(self) -> None:
        """Name all that is missing.  Raises UsageError."""
        if self.missing:
            raise click.UsageError(f"this is no terminal, so nothing is asked; missing: {', '.join(self.missing)}")


def _named(name: str) -> str:
    from control.binding.name import check_label  # noqa: PLC0415  # brings the rules of names
    from control.errors import ResourceError  # noqa: PLC0415

    try:
        return check_label(name)
    except ResourceError as error:
        raise CommandError(error.message, hint=error.hint, code=Exit.USAGE) from None


def _hosts(ask: _Asking, given: Sequence[str], flag: str, question: str) -> Sequence[str]:
    """Take the hosts; people type URLs, and hear at once what of them is the name."""
    while True:
        hosts = ask.several(given, flag, question)
        wrong = next((host for host in hosts if _MORE.search(host)), None)
        if wrong is None:
            return hosts
        says, hint = f'host "{wrong}" is more than a name', _name_in(wrong)
        if given or not ask.people:
            raise CommandError(says, hint=hint, code=Exit.USAGE)
        note("error", says)
        note("hint", hint)


def _name_in(url: str) -> str:
    """Say which options a URL, or a name with a port or a dot behind it, would be."""
    rest = url.partition("://")[2] or url
    name, _, port = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2].partition(":")
    return f"--host {name.rstrip('.') or 'NAME'}{f' --port {port}' if port not in ('', '443') else ''}"


def _wire(given: dict[str, Any], ask: _Asking) -> dict[str, str]:
    """Read the one way in which the secret is put on a request."""
    options = {"header": "header", "basic": "username", "query": "parameter", "cookie": "cookie"}
    ways = [way for way in (*options, "bearer") if given[way]]
    if len(ways) > 1:
        raise click.UsageError(f"the secret goes one way: {' or '.join('--' + way for way in ways)}")
    if not ways:
        if not ask.people:
            ask.missing.append("one of --header, --bearer, --basic, --query, --cookie")
            return {}
        way = click.prompt("how it is sent", type=click.Choice((*options, "bearer")), default="header", err=True)
        if way != "bearer":
            given[way] = click.prompt(f"{options[way]}", err=True)
        ways = [way]
    way = ways[0]
    return {"signer": way} if way == "bearer" else {"signer": way, options[way]: given[way]}


def _described(name: str, given: dict[str, Any], hosts: Sequence[str], ask: _Asking) -> Callable[[], starter.Common]:
    """Ask for program, user and owner; what needs the machine is looked up once nothing is missing."""
    identity = given["identity"]
    exe = user = ""
    if identity is None:
        exe = ask.one(given["exe"], "--exe", "program (path of an executable or a #! script)", wrong=_no_program)
        user = ask.one(given["user"], "--user", "user who runs it", default=_sudo_user(), wrong=_no_user)
    owner = ask.one(given["owner"], "--owner", "owner, who answers for it (an e-mail address)")

    def made() -> starter.Common:
        who = None if identity is not None else _who(exe, given["script"], user, allow_root=given["allow_root"])
        where = starter.Where(hosts, given["ports"], given["methods"], given["paths"], given["networks"], given["upstream_roots"])
        today = dt.datetime.now(dt.UTC).date().isoformat()
        return starter.Common(
            name, owner, given["environment"], given["mode"], today, given["review_every"], who, identity or name, where
        )  # fmt: skip

    return made


def _no_program(path: str) -> str:
    return "" if find(path) is not None else f'there is no program "{path}"'


def _no_user(user: str) -> str:
    try:
        _ = _UID.fullmatch(user) or pwd.getpwnam(user)
    except KeyError:
        return f'there is no user "{user}"'
    return ""


def _sudo_user() -> str | None:
    """Offer who called sudo as the one who runs the program."""
    return os.environ.get("SUDO_USER") or None


def _who(exe: str, script: str | None, user: str, *, allow_root: bool) -> starter.Who:
    """Look up the program and the user, and write down what the kernel will report: real paths and numbers."""
    found = find(exe)
    if found is None and is_file(exe):
        raise CommandError(f"{exe} is a script, and there is no such interpreter as its #! line names", hint="mend its first line")
    if found is None:
        raise CommandError(f'there is no program "{exe}"', hint="write the path that command -v prints")
    if not Path(found.exe).stat().st_mode & 0o111:
        raise CommandError(f"{found.exe} is a file that nobody may execute", hint=f"chmod +x {found.exe}, or name the program itself")
    if found.by_env and not script:
        hint = f"write the interpreter's own path into the #! line of {found.given}, or bind another program"
        raise CommandError(f"{found.given} is started through env, and the kernel then knows no script", hint=hint)
    if found.script:
        found = found._replace(script=str(Path(found.script).absolute()))
        note("note", f"{found.script} is a script: the kernel reports its interpreter {found.exe}, and the script beside it")
    elif found.exe != found.given:
        note("note", f"{found.given} is a link: the kernel reports {found.exe}")
    try:
        account = pwd.getpwuid(int(user)) if _UID.fullmatch(user) else pwd.getpwnam(user)
    except KeyError:
        if not _UID.fullmatch(user):
            raise CommandError(f'there is no user "{user}"', hint="adduser --system makes one; a uid is taken as it is") from None
        return starter.Who(found.exe, script or found.script, int(user), "", allow_root)
    if account.pw_uid == 0 and not allow_root:
        raise CommandError("root is nobody's own user", hint="give the program a user of its own, or say --allow-root")
    return starter.Who(found.exe, script or found.script, account.pw_uid, account.pw_name, allow_root)


# ---- writing ---------------------------------------------------------------------------------------------------------------------------


def _target(config: "Config", given: dict[str, Any]) -> Path:
    directory: Path = given["resources"] or Path(config.paths.resources)
    return directory / f"{given['name']}.yaml"


def _check_free(config: "Config", given: dict[str, Any]) -> None:
    """See that nothing is there already, before anything is asked.  Raises CommandError."""
    paths = [_target(config, given)]
    if not given.get("instance_principal"):
        paths.append(secrets_directory(config) / given["name"])
    for path in paths:
        if secret_io.there(path) and not given["force"]:
            raise CommandError(f"{path} is there already", hint="--force replaces it, another NAME goes beside it")


def _write(config: "Config", given: dict[str, Any], common: starter.Common, *, text: str, secret_file: Path | None, what: str) -> None:
    """Write, judge, and take everything back when the set would be refused."""
    over = given["force"]
    target = _target(config, given)
    content, how = b"", ""
    if secret_file is not None:
        secret_io.may_seal(config)
        secret = secret_io.read(given["secret_file"], what)
        secret_io.one_line(secret)
        content, how = secret_io.sealed(config, secret_file.name, secret)
    before = secret_io.put(target, text.encode(), 0o644, over=over)
    try:
        _judge(target.parent, target, config, common)
        if secret_file is not None:
            secret_io.put(secret_file, content, 0o600, over=over, directory_mode=0o700)
    except BaseException:
        secret_io.take_back(target, before, 0o644)
        raise
    click.echo(f"wrote {target}: {starter.lines_of_yaml(text)} lines of YAML, mode {given['mode']}")
    if secret_file is not None:
        click.echo(f"wrote {secret_file}: {how}, mode 0600")
    _next(config, given, common, target)


def _judge(directory: Path, target: Path, config: "Config", common: starter.Common) -> None:
    """Judge the whole directory as a reload would.  Raises CommandError after every fault was said."""
    from control.binding.validate_io import validate  # noqa: PLC0415  # brings the YAML parser

    found, errors, warnings = validate(directory, config.trust_domain, here=True, guarded=os.geteuid() == 0)
    other = _same_process(found.identities, common) if found is not None and common.who is not None else ""
    if other:
        raise CommandError(
            f'nothing was written: identity "{other}" matches this program and user already, and a process with two identities is refused',
            hint=f"init api-key takes --identity {other} instead of --exe and --user; else name another user",
        )
    told = [fault for fault in warnings if fault.place is None or fault.place.file == str(target) or f" {target}:" in fault.hint]
    for kind, faults in (("error", errors), ("warning", told)):
        for fault in faults:
            note(kind, str(fault))
            if fault.hint:
                note("hint", fault.hint)
    if found is None:
        if any(fault.place is not None and fault.place.file == str(target) for fault in errors):
            raise CommandError("nothing was written: a reload would refuse it", hint="change what the errors name, and say it again")
        raise CommandError(
            "nothing was written: a reload would refuse what is there already", hint=f"mend it first: credwire validate {directory}"
        )


def _same_process(identities: "Sequence[Identity]", common: starter.Common) -> str:
    """Name another identity that has every process of ours, or whose every process ours would have; empty when there is none."""
    groups = {i.name: [{s.kind: set(s.values) for s in group} for group in i.selectors] for i in identities}
    ours = groups.pop(common.name, [])

    def within(one: dict[str, set[str]], other: dict[str, set[str]]) -> bool:
        return all(kind in one and one[kind] <= values for kind, values in other.items())

    return next((name for name, theirs in groups.items() for a in theirs for b in ours if within(a, b) or within(b, a)), "")


def _next(config: "Config", given: dict[str, Any], common: starter.Common, target: Path) -> None:
    """Say which commands come next."""
    resources = Path(config.paths.resources)
    try:
        look_at(Path(config.paths.run) / "admin.sock")
        load = "credwire reload"
    except AskError:
        load = "credwired start"
    who = common.who
    program = (who.script or who.exe) if who is not None else "PROGRAM"
    command = f"credwire run -- {program} {_example(common.where)}".rstrip()
    if who is not None and who.uid != os.geteuid():
        user = who.user or f"'#{who.uid}'"
        command = f"sudo -u {user} {command}"
    steps = [] if given["resources"] in (None, resources) else [f"cp {target} {resources}/"]
    click.echo("next:")
    for step in (*steps, load, command, "credwire audit tail"):
        click.echo(f"  {step}")
    if common.mode == "observe":
        click.echo(f"to give it the credential: write enforce for observe in {target}, then credwire reload")


def _example(where: starter.Where) -> str:
    host = next(iter(where.hosts), "")
    port = next(iter(where.ports), 443)
    path = next(iter(where.paths), "/").replace("*", "")
    return f"https://{host}{'' if port == 443 else f':{port}'}{path}" if host and not host.startswith("*") else ""
