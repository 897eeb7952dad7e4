"""The group of commands: ours in the order of a first walk, then those of other packages."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import click

from ..errors import PluginError
from ..runtime import plugins

__all__ = ["Commands"]


class Commands(click.Group):
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
