"""The entry point of ``totesys``: no traceback if it is stopped before a command begins, or after its end.

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

    code = 1
    try:
        try:
            interrupts.install()
            edge.quiet_beside()
            totesys(prog_name="totesys")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        interrupts.leave(code)
    except KeyboardInterrupt:  # before or after the command: while it works, it says itself that it was stopped
        interrupts.leave(interrupts.exit_code())


if __name__ == "__main__":
    main()
