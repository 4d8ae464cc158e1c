"""The entry point of ``totesys``: ends without a word if it is stopped before the commands are there.

Belongs here: nothing that takes time to import. The commands are in commands/.
"""

import signal


def main() -> None:
    """Run the command line of this process, and end it."""
    # Python's own handler would show a traceback of whatever is just imported.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from totesys_assets.commands import edge, interrupts
    from totesys_assets.commands import main as totesys

    try:
        interrupts.install()
        edge.quiet_beside()
        totesys(prog_name="totesys")
    except KeyboardInterrupt:  # just before or after a command, which says itself that it was stopped
        interrupts.leave(interrupts.exit_code())
    except SystemExit as end:
        interrupts.leave(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    main()
