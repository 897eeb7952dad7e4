"""The group of commands: ours in the order of a first walk, then those of other packages."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import click

from ..errors import PluginError
from ..runtime import plugins

__all__ = ["Commands", "Passing"]

_PASSED = {
    "dir": ("DIR", "Folder that `encvec init` made [default: .]."),
    "store": ("URL", "Store, if not DIR/store."),
    "keys": ("URI", "Keyset, if not DIR/keys.json."),
}


class Passing(click.Group):
    """A group that takes --dir, --store, --keys and --json, too, and passes them on to the command after it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (metavar, text) in _PASSED.items():
            self.params.append(click.Option([f"--{name}", f"passed_{name}"], metavar=metavar, help=text))
        self.params.append(click.Option(["--json", "passed_json"], is_flag=True, help="Print JSON."))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command, and keep what is passed on out of the callback's way."""
        rest = super().parse_args(ctx, args)
        given = {name: ctx.params.pop(f"passed_{name}", None) for name in (*_PASSED, "json")}
        words = [word for name in _PASSED if given[name] is not None for word in (f"--{name}", given[name])]
        ctx.meta[ctx.command_path] = words + (["--json"] if given["json"] else [])
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and put before its arguments what stood before its name: what follows it, wins."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, [*ctx.meta.get(ctx.command_path, ()), *rest]


class Commands(Passing):
    """Finds a command of ours, else one that an installed package offers."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands in the order they were added, then the others by name."""
        return [*self.commands, *self._plugins]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command. Packages are looked for only where it is none of ours."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in self._plugins:
            return own
        try:
            command: click.Command = self._plugins[cmd_name].load(click.Command)
        except PluginError as error:
            return _broken(cmd_name, error)
        return command

    @cached_property
    def _plugins(self) -> dict[str, plugins.Plugin]:
        return plugins.find(plugins.COMMANDS, self.commands)


def _broken(name: str, error: PluginError) -> click.Command:
    """Stand in for a command that cannot be loaded: the list shows it, and to use it tells why."""

    def tell(**_: Any) -> None:
        raise error

    return click.Command(
        name,
        callback=tell,
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)],
        add_help_option=False,  # `--help` is a use of it, too
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        short_help="(cannot be loaded)",
    )
