"""The command ``gopt-geo``. Nothing heavy is imported here or by the command modules: ``--help`` stays quick."""

from __future__ import annotations

from typing import Annotated

import typer

from gopt_geo_cli import batch, coregister, evaluate, info, init, predict, sample, simulate, train, vectorize
from gopt_geo_cli.guard import EXIT_PIPE, GuardedGroup, flush_or_drop, on_signals

__all__ = ["app", "main"]

# Plain help instead of rich panels: rich's Markdown machinery alone takes two thirds of the 0.3 s that --help may cost.
app = typer.Typer(
    name="gopt-geo",
    cls=GuardedGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if not wanted:
        return
    from gopt_geo import __version__

    typer.echo(f"gopt-geo {__version__}")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Land-cover maps from optical and SAR rasters, with grouping prompts (GoPT) on a frozen vision transformer.

    Errors are one line on stderr and exit code 2: the file or option, what was found, what to do.
    """


app.command("predict")(predict.predict)
app.command("batch")(batch.batch)
app.command("init")(init.init)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("sample")(sample.sample)
app.command("coregister")(coregister.coregister)
app.command("vectorize")(vectorize.vectorize)
app.command("info")(info.info)
app.command("simulate")(simulate.simulate)


def main() -> None:
    """Entry point of the console script."""
    code: int | str | None = 0
    with on_signals():
        try:
            app()
        except SystemExit as stop:
            code = stop.code
    if not flush_or_drop():
        code = code or EXIT_PIPE
    raise SystemExit(code)


if __name__ == "__main__":
    main()
