"""How the app is served: what its command line and its variables ask for, and who will be able to reach it.

Each flag has a variable of its name, TEXT2VIDEO_ANY_MODEL say for --any-model, for places where no command line can be
written: a container, a Space.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.visitors.limits import Limits
from text2video_zero.device.options import add_device_options
from text2video_zero.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "TEXT2VIDEO_"
# Gradio's own names for two of them go on to count.
GRADIO_NAMES = {"host": "GRADIO_SERVER_NAME", "port": "GRADIO_SERVER_PORT"}
PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
ANY_ADDRESS = ("0.0.0.0/0", "::/0")
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what it leaves open, variables or a careful default decide. Raises UserError."""
    parser = build_parser()
    parser.set_defaults(**_said_by_variables(parser, os.environ))
    return parser.parse_args(argv)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the app."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Serve Text2Video-Zero as a web page.",
        epilog=f"Each flag has a variable too: {PREFIX}MODEL=sd-1.5, {PREFIX}ANY_MODEL=1 and so on.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--port", type=int, default=7860)
    add_device_options(parser)
    parser.add_argument("--model", default="toyland", help="chosen at first: a name, folder, .safetensors or Hub id")
    parser.add_argument(
        "--output-dir", type=Path, help="folder of finished videos; outputs, or if shared a temporary one"
    )
    _add_flags_for_others(parser)
    parser.add_argument(
        "--no-history", action="store_true", help="keep no prompts and settings, neither in videos nor beside them"
    )
    parser.add_argument(
        "--workers",
        metavar="local:N|ray://HOST:PORT",
        help="compute in N processes of this machine, or on a Ray cluster; in this program if left out",
    )
    parser.add_argument("--mcp", action="store_true", help="serve the tasks to language models, too, as an MCP server")
    parser.add_argument("--check", action="store_true", help="tell what there is to work with, and exit")
    return parser


def _add_flags_for_others(parser: argparse.ArgumentParser) -> None:
    """What is said of people who reach the page beside its owner."""
    parser.add_argument("--share", action="store_true", help="also serve on a public gradio.live address")
    parser.add_argument("--auth", action="append", metavar="USER:PASSWORD", help="ask for a password; may be repeated")
    parser.add_argument(
        "--private",
        action="store_true",
        help="only you can reach the page, for example a container's port published to 127.0.0.1; it answers to this "
        "machine's name, any address and --allow-host",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="a name by which the page is called, beside this machine's",
    )
    parser.add_argument(
        "--trust-proxy",
        action="append",
        metavar="ADDRESS",
        help="a proxy or network of proxies, 10.0.0.0/8 say, that tells where visitors come from by X-Forwarded-For",
    )
    parser.add_argument(
        "--limit",
        action="append",
        metavar="NAME=NUMBER",
        help=f"of a visitor to a shared page: {', '.join(one.name for one in fields(Limits))}; may be repeated",
    )
    parser.add_argument(
        "--offer",
        action="append",
        metavar="MODEL",
        help="a known model that a shared app downloads when a visitor wants it, beside those that are here",
    )
    parser.add_argument("--any-model", action="store_true", help="a shared app, too, loads any model that is typed")
    parser.add_argument(
        "--safety-checker",
        action=argparse.BooleanOptionalAction,
        help="discard a video if the checker blocks any frame; on for a shared app, off otherwise",
    )


def is_shared(options: argparse.Namespace) -> bool:
    """Whether people other than the one whose page it is can reach it."""
    return options.share or "SPACE_ID" in os.environ or not (options.private or _is_loopback(options.host))


def wants_check(options: argparse.Namespace) -> bool:
    """Whether the safety checker looks at videos before they are shown: where others see them, unless told not to."""
    return is_shared(options) if options.safety_checker is None else options.safety_checker


def known_hosts(options: argparse.Namespace) -> tuple[str, ...]:
    """Names and networks by which the page may be called; none where others reach it by any name, and none was given.

    A page for one person alone is read by no other name: else a web site whose name comes to mean 127.0.0.1 while it
    is open could read it through its visitor's browser (DNS rebinding). An address in place of a name is no web site's:
    a private page that listens on more than this machine's own may be called by any. Raises UserError for what is none.
    """
    given = options.allow_host or ()
    if options.share and given:
        raise UserError("--allow-host goes without --share, whose link has a name of its own: leave one of them out.")
    for name in given:
        if "/" in name:
            raise UserError(f"--allow-host {name!r} is more than a name: write for example lab.example.")
    if is_shared(options) and not given:
        return ()
    own = ("localhost", "127.0.0.1", "::1", options.host, *given)
    is_wide = not (is_shared(options) or _is_loopback(options.host))
    return (*own, socket.gethostname(), *ANY_ADDRESS) if is_wide else own


def trusted_proxies(options: argparse.Namespace) -> tuple[str, ...]:
    """Addresses and networks of proxies; this machine's own is trusted anyhow. Raises UserError.

    Nobody comes to a Space but through the proxies of its private network.
    """
    given = tuple(options.trust_proxy or ())
    for proxy in given:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise UserError(
                f"--trust-proxy {proxy!r} is no address: give one, or a network such as 10.0.0.0/8."
            ) from error
    return (*given, *(PRIVATE_NETWORKS if "SPACE_ID" in os.environ else ()))


def _said_by_variables(parser: argparse.ArgumentParser, variables: Mapping[str, str]) -> dict[str, Any]:
    """Values of flags that variables give; raises UserError where one says neither yes nor no to a switch."""
    said: dict[str, Any] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse tells its flags in no other way
        names = (PREFIX + action.dest.upper(), GRADIO_NAMES.get(action.dest, ""))
        name = next((name for name in names if variables.get(name)), None)
        if name is None:
            continue
        value = variables[name]
        if action.nargs == 0:
            if value.lower() not in (*YES, *NO):
                raise UserError(f"{name} is {value!r}: write 1 or 0.")
            said[action.dest] = value.lower() in YES
        else:
            said[action.dest] = value.split() if isinstance(action, argparse._AppendAction) else value  # noqa: SLF001
    return said


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
